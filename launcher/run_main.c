/* run_main.c - djinn-run: ranks without a launcher, and a command beside them. */
#include "launcher/launch.h"

int main(int argc, char **argv)
{
    static const dj_launch_t launch = {
        .usage = "usage: djinn-run [-n RANKS] [-q] [--OPTION VALUE]...\n"
                 "       djinn-run [-n RANKS] [-q] [--OPTION VALUE]... -- COMMAND...\n"
                 "Starts ranks on this machine and prints their address. With a command: runs it\n"
                 "once against these ranks (DJINN_ADDRESS and DJINN_TOKEN are set for it), ends\n"
                 "them after it and exits with its status, 128 and the number for a signal.\n\n",
        .takes_command = true,
    };
    return dj_launch_main(&launch, argc, argv);
}
