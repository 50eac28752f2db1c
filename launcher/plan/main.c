/* main.c - the words of djinn plan. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/plan/plan.h"
#include "launcher/plan/file.h"
#include "launcher/plan/solve.h"
#include "runtime/base/hash.h"

static const char usage[] =
    "usage: djinn plan COMMAND FILE\n"
    "  show FILE [--program N] [--json] [--svg OUT]\n"
    "      what a recording is and needs, and where its time goes; as JSON; as a picture of the "
    "slab\n"
    "  replay FILE [--program N] [--runs N]\n"
    "      plans it, proves the plan and runs it on this machine with made-up inputs\n"
    "  cut FILE --stages K [--memory BYTES] [--by bytes|time] [--program N]\n"
    "      cuts it into K stages, least bytes crossing or least time of the slowest\n"
    "  solve FILE.csv --capacity N [--time SECONDS]\n"
    "      places rows id,lower,upper,size (half-open lifetimes) below N and prints them with their\n"
    "      offset; exit status 1 when nothing fits in the time (60 s)\n"
    "A recording is what djinn.snapshot() or djinn_snapshot() wrote.\n";

static dj_status_t parse_count(const char *word, const char *text, uint64_t least, uint64_t most,
                               uint64_t *value_p)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || text[0] == '-' || errno != 0 || value < least ||
        value > most)
        return dj_fail(DJ_ERR_INVALID, "%s takes a number from %llu to %llu, not '%.32s'", word,
                       (unsigned long long)least, (unsigned long long)most, text);
    *value_p = value;
    return DJ_OK;
}

/* Bytes with an optional K, M, G or T, as in Djinn's settings. */
static dj_status_t parse_bytes(const char *word, const char *text, uint64_t *value_p)
{
    static const char suffixes[] = "KMGT";
    char digits[32];
    size_t length = strlen(text);
    const char *suffix = length > 0 ? strchr(suffixes, text[length - 1]) : NULL;
    uint32_t shift = suffix != NULL && *suffix != '\0' ? 10 * (uint32_t)(suffix - suffixes + 1) : 0;
    uint64_t value;
    snprintf(digits, sizeof digits, "%.*s", (int)(shift > 0 ? length - 1 : length), text);
    if (parse_count(word, digits, 1, UINT64_MAX >> shift, &value) != DJ_OK)
        return dj_fail(DJ_ERR_INVALID, "%s takes bytes, such as 4096, 512M or 16G, not '%.32s'",
                       word, text);
    *value_p = value << shift;
    return DJ_OK;
}

static dj_status_t take_option(dj_plan_words_t *words, const char *word, const char *value)
{
    if (value == NULL)
        return dj_fail(DJ_ERR_INVALID, "%s needs a value", word);
    if (strcmp(word, "--svg") == 0)
        words->svg = value;
    else if (strcmp(word, "--program") == 0) {
        words->program_given = true;
        return parse_count(word, value, 0, UINT32_MAX - 1, &words->program);
    } else if (strcmp(word, "--runs") == 0)
        return parse_count(word, value, 1, 1000000, &words->runs);
    else if (strcmp(word, "--stages") == 0)
        return parse_count(word, value, 1, DJ_CUT_STAGES_MAX, &words->stages);
    else if (strcmp(word, "--memory") == 0)
        return parse_bytes(word, value, &words->memory_bytes);
    else if (strcmp(value, "bytes") == 0 || strcmp(value, "time") == 0)
        words->by_time = value[0] == 't';
    else
        return dj_fail(DJ_ERR_INVALID, "--by takes bytes or time, not '%.32s'", value);
    return DJ_OK;
}

/* A word of the command line is one of `allowed` (with a value, but for --json) or the file. */
static dj_status_t parse(int argc, char **argv, const char *allowed, dj_plan_words_t *words)
{
    dj_status_t status = DJ_OK;
    for (int i = 3; status == DJ_OK && i < argc; i++) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, " %.60s ", argv[i]);
        if (strncmp(argv[i], "--", 2) != 0 && words->path == NULL)
            words->path = argv[i];
        else if (strncmp(argv[i], "--", 2) != 0 || strstr(allowed, wanted) == NULL)
            status = dj_fail(DJ_ERR_INVALID, "plan %s takes no '%.64s'", argv[2], argv[i]);
        else if (strcmp(argv[i], "--json") == 0)
            words->json = true;
        else {
            status = take_option(words, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
            i++;
        }
    }
    if (status == DJ_OK && words->path == NULL)
        status = dj_fail(DJ_ERR_INVALID, "plan %s needs a file", argv[2]);
    return status;
}

/* X: name, options with spaces around each, function */
static const struct {
    const char *name, *allowed;
    int (*run)(const dj_plan_words_t *words);
} commands[] = {
    {"show", " --json --svg --program ", dj_plan_show},
    {"replay", " --program --runs ", dj_plan_replay},
    {"cut", " --stages --memory --by --program ", dj_plan_cut},
};

static int wrong(const char *sentence)
{
    fprintf(stderr, "djinn: %s; djinn plan --help shows what there is\n", sentence);
    return 2;
}

int dj_plan_main(int argc, char **argv)
{
    const char *command = argc > 2 ? argv[2] : "";
    dj_plan_words_t words = {.runs = 5};
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (strcmp(command, "solve") == 0)
        return dj_plan_solve_main(argc, argv);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(command, commands[i].name) != 0)
            continue;
        if (parse(argc, argv, commands[i].allowed, &words) != DJ_OK)
            return wrong(dj_error_text());
        if (commands[i].run == dj_plan_cut && words.stages == 0)
            return wrong("plan cut needs --stages K");
        if (!dj_hash_setup())
            return wrong("the system gives no random bytes");
        return commands[i].run(&words);
    }
    return wrong(command[0] ? "plan knows no such word" : "plan needs a word");
}
