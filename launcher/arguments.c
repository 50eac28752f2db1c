/* arguments.c - walks argv: the table's options are taken by dj_config_options(), the rest here. */
#include "launcher/arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *base_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash ? slash + 1 : path ? path : "djinn";
}

/* "-n 4" or "-n4" at argv[*at_p]. */
static dj_status_t take_ranks(dj_arguments_t *arguments, int argc, char *const *argv, int *at_p)
{
    char option[64];
    const char *value = argv[*at_p] + 2;
    int at = *at_p + 1, first = 0;
    if (!*value && at < argc)
        value = argv[at++];
    if (snprintf(option, sizeof option, "--ranks=%s", value) >= (int)sizeof option || !*value)
        return dj_fail(DJ_ERR_INVALID, "-n needs a number of ranks, as -n 3");
    char *words[] = {option};
    dj_status_t status = dj_config_options(&arguments->config, 1, words, &first);
    if (status == DJ_OK)
        *at_p = at;
    return status;
}

static dj_status_t take_own(dj_arguments_t *arguments, int argc, char *const *argv, int *at_p)
{
    const char *word = argv[*at_p];
    if (strncmp(word, "-n", 2) == 0)
        return take_ranks(arguments, argc, argv, at_p);
    if (strcmp(word, "-q") == 0)
        arguments->quiet = true;
    else if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0)
        arguments->help = true;
    else if (strcmp(word, "-V") == 0 || strcmp(word, "--version") == 0)
        arguments->version = true;
    else
        return dj_fail(DJ_ERR_INVALID, "unknown option %.64s; --help lists them all", word);
    *at_p += 1;
    return DJ_OK;
}

static dj_status_t take_command(dj_arguments_t *arguments, int argc, char *const *argv, int at,
                                bool takes_command)
{
    bool marked = at < argc && strcmp(argv[at], "--") == 0;
    at += marked;
    if (at < argc && !takes_command)
        return dj_fail(DJ_ERR_INVALID,
                       "%s takes options only, not '%.64s'; djinn-run starts commands",
                       arguments->program, argv[at]);
    if (marked && at == argc && takes_command)
        return dj_fail(DJ_ERR_INVALID,
                       "no command behind --; leave -- out to start only the ranks");
    if (at < argc)
        arguments->command = argv + at;
    return DJ_OK;
}

void dj_arguments_fini(dj_arguments_t *arguments)
{
    free(arguments->words);
    arguments->words = NULL;
}

dj_status_t dj_arguments_parse(dj_arguments_t *arguments, int argc, char *const *argv,
                               bool takes_command)
{
    int at = 1, from = 1;
    *arguments = (dj_arguments_t){.program = base_name(argc > 0 ? argv[0] : NULL)};
    arguments->words = calloc((size_t)argc + 1, sizeof *arguments->words);
    if (!arguments->words)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %d arguments", argc);
    dj_status_t status = dj_config_load(&arguments->config, argc, argv, &at);
    while (status == DJ_OK) {
        for (; from < at; from++)
            arguments->words[arguments->n_words++] = argv[from];
        if (at >= argc || argv[at][0] != '-' || strcmp(argv[at], "--") == 0)
            break;
        status = take_own(arguments, argc, argv, &at);
        from = at;
        if (status != DJ_OK || arguments->help || arguments->version)
            break;
        status = dj_config_options(&arguments->config, argc, argv, &at);
    }
    if (status == DJ_OK && !arguments->help && !arguments->version)
        status = take_command(arguments, argc, argv, at, takes_command);
    if (status != DJ_OK)
        dj_arguments_fini(arguments);
    return status;
}
