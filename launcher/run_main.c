/* run_main.c - djinn-run: ranks, with a launcher or without, and a command beside them. */
#include "launcher/launch.h"

int main(int argc, char **argv)
{
    static const dj_launch_t launch = {
        .usage = "usage: djinn-run [-n RANKS] [-q] [--OPTION VALUE]...\n"
                 "       djinn-run [-n RANKS] [-q] [--OPTION VALUE]... -- COMMAND...\n"
                 "       srun djinn-run -- COMMAND...\n"
                 "       djinn-run --attach HOST:PORT|FILE -- COMMAND...\n"
                 "Starts ranks and prints their address. With a command: runs it once against these\n"
                 "ranks when all serve (DJINN_ADDRESS and DJINN_TOKEN are set for it), ends them\n"
                 "after it and exits with its status, 128 and the number for a signal. Under a\n"
                 "launcher the ranks are spread over its tasks and the command runs in the first\n"
                 "(--per-node: in every one). --attach: no ranks, a server that runs already.\n"
                 "--dry-run: which rank would be where.\n"
                 "Exit status 2: nothing was started, and one sentence says why.\n\n",
        .takes_command = true,
    };
    return dj_launch_main(&launch, argc, argv);
}
