/* server_main.c - djinn-server: what mpirun, srun or a user starts. */
#include "launcher/launch.h"

int main(int argc, char **argv)
{
    static const dj_launch_t launch = {
        .usage = "usage: djinn-server [-n RANKS] [-q] [--OPTION VALUE]...\n"
                 "       mpirun -np RANKS djinn-server [--OPTION VALUE]...\n"
                 "       srun -n RANKS djinn-server [--OPTION VALUE]...\n"
                 "Starts ranks that hold tensors and compute on them. One rank serves alone; of\n"
                 "several, rank 0 coordinates. The address goes to standard output and to\n"
                 "~/.djinn/address, progress to standard error (-q: none). Ctrl-C ends all.\n\n",
    };
    return dj_launch_main(&launch, argc, argv);
}
