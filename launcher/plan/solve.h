/* solve.h - djinn plan solve: places the rectangles of a CSV file under a capacity. */
#ifndef DJ_LAUNCHER_PLAN_SOLVE_H
#define DJ_LAUNCHER_PLAN_SOLVE_H

/* argv[1] is "plan", argv[2] "solve". Returns the exit status: 0, 1 when nothing fits or was found
 * in time, 2 for wrong use or a malformed file. */
int dj_plan_solve_main(int argc, char **argv);

#endif
