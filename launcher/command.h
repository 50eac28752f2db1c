/* command.h - the words of the djinn command: one table, a row a word.
 *
 * dj_commands (djinn_main.c) is what dispatch, --help, the completion of the shells and the page
 * djinn(1) are made of. To add a word, add a row and a function.
 *
 * A synopsis is read by programs, too: what stands in it in small letters or begins with "--" is a
 * word to complete ("[--json]", "bash|zsh"), capitals stand for a value, FILE for a file, and
 * "[--OPTION VALUE]..." for every option of the configuration table. */
#ifndef DJ_LAUNCHER_COMMAND_H
#define DJ_LAUNCHER_COMMAND_H

typedef struct dj_command {
    const char *name;                  /* "info"; with a word of its own: "plan show" */
    const char *synopsis;              /* what follows the name */
    const char *about;                 /* the line of --help, below 80 columns */
    const char *manual;                /* its paragraph in djinn(1) */
    int (*run)(int argc, char **argv); /* argv[1] is the name's first word; the exit status */
} dj_command_t;

extern const dj_command_t dj_commands[]; /* ends with a row without a name */

/* One word of a synopsis; names the kinds that completion and pages tell apart. */
typedef enum dj_synopsis_kind {
    DJ_SYNOPSIS_OPTION, /* --json */
    DJ_SYNOPSIS_WORD,   /* markdown */
    DJ_SYNOPSIS_FILE,   /* FILE, FILE.csv: any word in capitals that begins so */
    DJ_SYNOPSIS_TABLE   /* --OPTION: all of the configuration table */
} dj_synopsis_kind_t;

/* Calls `visit` for each word of the synopsis that has a kind, in order; `length` bytes of `word`.
 * Values of options ("--by bytes|time") have none. */
typedef void (*dj_synopsis_visit_t)(void *context, dj_synopsis_kind_t kind, const char *word,
                                    int length);
void dj_synopsis_walk(const char *synopsis, dj_synopsis_visit_t visit, void *context);

/* djinn completion: for bash, zsh or fish. */
int dj_completion_main(int argc, char **argv);
/* djinn manual: a page with the tables filled in. */
int dj_manual_main(int argc, char **argv);

#endif
