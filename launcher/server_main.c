/* server_main.c - djinn-server: what mpirun, srun or a user starts. */
#include "launcher/launch.h"

int main(int argc, char **argv)
{
    static const dj_launch_t launch = {
        .usage = "usage: djinn-server [-n RANKS] [-q] [--OPTION VALUE]...\n"
                 "       mpirun -np RANKS djinn-server [--OPTION VALUE]...\n"
                 "       srun djinn-server [--OPTION VALUE]...\n"
                 "       djinn-server --join HOST:PORT|FILE [--OPTION VALUE]...\n"
                 "Starts ranks that hold tensors and compute on them. One rank serves alone; of\n"
                 "several, rank 0 coordinates. Tasks of a launcher that are alone on their nodes\n"
                 "mind a rank for every device of it, else each one rank (--ranks-per-node). The\n"
                 "address goes to standard output and to ~/.djinn/address (and --address-file),\n"
                 "progress to standard error (-q: none). Ctrl-C ends all. --join: takes over ranks\n"
                 "whose supervisor was lost.\n"
                 "Exit status 2: nothing was started, and one sentence says why.\n\n",
    };
    return dj_launch_main(&launch, argc, argv);
}
