/* plan.h - djinn plan: looking at recorded graphs and their plans from a terminal.
 *
 * Words: show, replay, cut, solve. Each takes a file; what is unreadable or malformed ends with
 * exit status 2 and one sentence, what cannot be done (nothing fits, no kernel) with 1. Nothing
 * here talks to a server. */
#ifndef DJ_LAUNCHER_PLAN_H
#define DJ_LAUNCHER_PLAN_H

/* argv[1] is "plan". Returns the exit status. */
int dj_plan_main(int argc, char **argv);

#endif
