/* config.c - the settings: defaults, then environment, then options, each later one winning.
 *
 * A row knows where its value lies in dj_config_t and how to parse it; the parser, the help, the
 * Markdown table, the pages and the completion all walk the same rows. Strings are kept in a pool of
 * distinct values for the life of the process, because a config is copied freely by value. */
#include "runtime/base/config.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runtime/base/log.h"

#define DJ_LOG_MODULE "config"
#define PREFIX "DJINN_"
#define NAME_BYTES 64
#define VALUE_BYTES 4096
#define OPTION_COLUMNS 18 /* of --help */
#define LINE_COLUMNS 100

typedef enum kind { TEXT, SIZE, COUNT, TIME, FLAG } kind_t;

typedef struct row {
    const char *name;
    kind_t kind;
    const char *initial, *allowed, *help;
    size_t offset; /* in dj_config_t */
} row_t;

static const row_t rows[] = {
#define X(name, kind, initial, allowed, help)                                                      \
    {#name, kind, initial, allowed, help, offsetof(dj_config_t, name)},
    DJ_CONFIG_LIST(X)
#undef X
};
#define ROWS (sizeof rows / sizeof rows[0])

typedef struct group {
    const char *title;
    unsigned rows;
} group_t;

static const group_t groups[] = {
#define X(...) +1
#define G(group, title) {title, 0 DJ_CONFIG_##group##_LIST(X)},
    DJ_CONFIG_GROUPS(G)
#undef G
#undef X
};
#define GROUPS (sizeof groups / sizeof groups[0])

typedef struct pooled {
    struct pooled *next;
    char text[];
} pooled_t;

static pooled_t *pool;
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;

/* The one kept copy of `text`; NULL when memory is short. */
static const char *keep(const char *text)
{
    pthread_mutex_lock(&pool_lock);
    pooled_t *kept = pool;
    while (kept && strcmp(kept->text, text) != 0)
        kept = kept->next;
    if (!kept && (kept = malloc(sizeof *kept + strlen(text) + 1))) {
        memcpy(kept->text, text, strlen(text) + 1);
        kept->next = pool;
        pool = kept;
    }
    pthread_mutex_unlock(&pool_lock);
    return kept ? kept->text : NULL;
}

static const row_t *find_row(const char *name)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

static unsigned smaller(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Levenshtein distance of two names below NAME_BYTES long. */
static unsigned distance(const char *a, const char *b)
{
    unsigned line[NAME_BYTES + 1], length = (unsigned)strlen(b);
    for (unsigned i = 0; i <= length; i++)
        line[i] = i;
    for (unsigned row = 1; *a; a++, row++) {
        unsigned diagonal = line[0];
        line[0] = row;
        for (unsigned i = 1; i <= length; i++) {
            unsigned above = line[i];
            line[i] = smaller(smaller(above, line[i - 1]) + 1, diagonal + (*a != b[i - 1]));
            diagonal = above;
        }
    }
    return line[length];
}

static const char *nearest_name(const char *name)
{
    char cut[NAME_BYTES];
    unsigned best = UINT32_MAX, at = 0;
    snprintf(cut, sizeof cut, "%s", name);
    for (unsigned i = 0; i < ROWS; i++) {
        unsigned far = distance(cut, rows[i].name);
        if (far < best) {
            best = far;
            at = i;
        }
    }
    return rows[at].name;
}

/* "DJINN_NAME" or "--name" in the user's own spelling. */
static void spell(const char *name, bool option, char spelled[NAME_BYTES])
{
    snprintf(spelled, NAME_BYTES, "%s%s", option ? "--" : PREFIX, name);
    for (char *at = spelled + (option ? 2 : strlen(PREFIX)); *at; at++) {
        if (option && *at == '_')
            *at = '-';
        else if (!option && *at >= 'a' && *at <= 'z')
            *at = (char)(*at - 'a' + 'A');
    }
}

static bool suffix_factor(kind_t kind, const char *suffix, uint64_t *factor_p)
{
    static const struct {
        const char *suffix;
        kind_t kind;
        uint64_t factor;
    } suffixes[] = {
        {"K", SIZE, 1ull << 10}, {"M", SIZE, 1ull << 20}, {"G", SIZE, 1ull << 30},
        {"T", SIZE, 1ull << 40}, {"K", COUNT, 1000},      {"M", COUNT, 1000000},
        {"ms", TIME, 1},         {"s", TIME, 1000},       {"m", TIME, 60000},
        {"h", TIME, 3600000},
    };
    *factor_p = 1;
    if (!*suffix)
        return true;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if (suffixes[i].kind == kind && strcasecmp(suffixes[i].suffix, suffix) == 0) {
            *factor_p = suffixes[i].factor;
            return true;
        }
    }
    return false;
}

static bool parse_number(kind_t kind, const char *value, uint64_t *number_p)
{
    char *end;
    uint64_t factor;
    if (*value < '0' || *value > '9') /* strtoull would take blanks and signs */
        return false;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (errno || !suffix_factor(kind, end, &factor))
        return false;
    return !__builtin_mul_overflow((uint64_t)number, factor, number_p);
}

static bool parse_flag(const char *value, bool *flag_p)
{
    static const char *const words[] = {"0", "1", "off", "on", "no", "yes", "false", "true"};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(value, words[i]) == 0) {
            *flag_p = i % 2;
            return true;
        }
    }
    return false;
}

static bool in_range(const row_t *row, uint64_t number)
{
    char low_text[NAME_BYTES];
    const char *colon = strchr(row->allowed, ':');
    uint64_t low = 0, high = UINT64_MAX;
    if (!colon)
        return true;
    snprintf(low_text, sizeof low_text, "%.*s", (int)(colon - row->allowed), row->allowed);
    return parse_number(row->kind, low_text, &low) && parse_number(row->kind, colon + 1, &high) &&
           number >= low && number <= high;
}

static bool is_allowed_word(const row_t *row, const char *value)
{
    if (!row->allowed[0] || strcmp(value, row->initial) == 0)
        return true;
    for (const char *word = row->allowed; *word; word += *word == '|') {
        size_t length = strcspn(word, "|");
        if (strlen(value) == length && memcmp(word, value, length) == 0)
            return true;
        word += length;
    }
    return false;
}

/* What the row takes, for errors and help. */
static void describe(const row_t *row, char *text, size_t room)
{
    static const struct {
        const char *noun, *examples;
    } kinds[] = {
        [TEXT] = {"text", ""},     [SIZE] = {"bytes", ", as 64K, 8M, 2G"},
        [COUNT] = {"a count", ""}, [TIME] = {"a time", ", as 100ms, 5s, 2m"},
        [FLAG] = {"0 or 1", ""},
    };
    const char *colon = strchr(row->allowed, ':');
    if (row->kind == TEXT && row->allowed[0])
        snprintf(text, room, "one of %s", row->allowed);
    else if (colon)
        snprintf(text, room, "%s from %.*s to %s", kinds[row->kind].noun,
                 (int)(colon - row->allowed), row->allowed, colon + 1);
    else
        snprintf(text, room, "%s%s", kinds[row->kind].noun, kinds[row->kind].examples);
}

/* `origin` is what the user wrote: a variable or an option. */
static dj_status_t set_value(dj_config_t *config, const row_t *row, const char *value,
                             const char *origin)
{
    char takes[128];
    char *field = (char *)config + row->offset;
    bool good = strlen(value) < VALUE_BYTES;
    if (good && row->kind == FLAG) {
        good = parse_flag(value, (bool *)field);
    } else if (good && row->kind == TEXT) {
        good = is_allowed_word(row, value);
        if (good && !(*(const char **)field = keep(value)))
            return dj_fail(DJ_ERR_MEMORY, "no memory for the value of %s", origin);
    } else if (good) {
        uint64_t number;
        good = parse_number(row->kind, value, &number) && in_range(row, number);
        if (good)
            *(uint64_t *)field = number;
    }
    if (good)
        return DJ_OK;
    describe(row, takes, sizeof takes);
    return dj_fail(DJ_ERR_INVALID, "%s: bad value '%.100s'; it takes %s (default '%s')", origin,
                   value, takes, row->initial);
}

/* "RANKS=8" becomes "ranks"; a name that is cut or holds anything but A-Z, 0-9 and '_' matches no
 * row afterwards. Returns where the value begins. */
static const char *fold_variable(const char *text, char name[NAME_BYTES])
{
    size_t length = strcspn(text, "="), i = 0;
    for (; i < length && i < NAME_BYTES - 1; i++) {
        bool upper = text[i] >= 'A' && text[i] <= 'Z', digit = text[i] >= '0' && text[i] <= '9';
        name[i] = upper ? (char)(text[i] - 'A' + 'a') : digit || text[i] == '_' ? text[i] : '?';
    }
    name[i] = 0;
    return text[length] ? text + length + 1 : "";
}

static dj_status_t load_environment(dj_config_t *config)
{
    extern char **environ;
    for (char **at = environ; at && *at; at++) {
        if (strncmp(*at, PREFIX, strlen(PREFIX)) != 0)
            continue;
        char name[NAME_BYTES], variable[NAME_BYTES], near[NAME_BYTES];
        const char *value = fold_variable(*at + strlen(PREFIX), name);
        snprintf(variable, sizeof variable, "%.*s", (int)strcspn(*at, "="), *at);
        const row_t *row = find_row(name);
        if (!row) {
            spell(nearest_name(name), false, near);
            dj_log(WARN, "unknown variable %s is ignored; the nearest name is %s", variable, near);
            continue;
        }
        dj_status_t status = set_value(config, row, value, variable);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

static bool ends_options(const char *word)
{
    return strncmp(word, "--", 2) != 0 || !word[2] || strcmp(word, "--help") == 0 ||
           strcmp(word, "--version") == 0;
}

/* One option at argv[*at_p], which is known to begin with "--". */
static dj_status_t take_option(dj_config_t *config, int argc, char *const *argv, int *at_p)
{
    char name[NAME_BYTES], option[NAME_BYTES], near[NAME_BYTES];
    const char *word = argv[*at_p] + 2;
    size_t length = strcspn(word, "=");
    snprintf(name, sizeof name, "%.*s", (int)(length < NAME_BYTES ? length : NAME_BYTES - 1), word);
    snprintf(option, sizeof option, "--%.*s", NAME_BYTES - 4, name);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : *c;
    const row_t *row = find_row(name);
    if (!row) {
        spell(nearest_name(name), true, near);
        return dj_fail(DJ_ERR_INVALID, "unknown option %s; the nearest is %s", option, near);
    }
    const char *value = word[length] ? word + length + 1 : NULL;
    int at = *at_p + 1;
    if (!value && row->kind == FLAG)
        value = "1";
    if (!value && at < argc)
        value = argv[at++];
    if (!value)
        return dj_fail(DJ_ERR_INVALID, "option %s needs a value: %s", option, row->help);
    dj_status_t status = set_value(config, row, value, option);
    if (status == DJ_OK)
        *at_p = at;
    return status;
}

dj_status_t dj_config_options(dj_config_t *config, int argc, char *const *argv, int *at_p)
{
    dj_config_t fresh = *config;
    int at = *at_p;
    while (at < argc && !ends_options(argv[at])) {
        dj_status_t status = take_option(&fresh, argc, argv, &at);
        if (status != DJ_OK)
            return status;
    }
    *config = fresh;
    *at_p = at;
    return DJ_OK;
}

dj_status_t dj_config_load(dj_config_t *config, int argc, char *const *argv, int *used_p)
{
    dj_config_t fresh = {0};
    int at = 1;
    for (size_t i = 0; i < ROWS; i++) {
        dj_status_t status = set_value(&fresh, &rows[i], rows[i].initial, rows[i].name);
        if (status != DJ_OK)
            return status;
    }
    dj_status_t status = load_environment(&fresh);
    if (status == DJ_OK && used_p)
        status = dj_config_options(&fresh, argc, argv, &at);
    if (status != DJ_OK)
        return status;
    *config = fresh;
    if (used_p)
        *used_p = at;
    return DJ_OK;
}

static void print_help_row(const row_t *row)
{
    char option[NAME_BYTES], takes[128], detail[256];
    const bool has_default = row->initial[0];
    spell(row->name, true, option);
    describe(row, takes, sizeof takes);
    snprintf(detail, sizeof detail, "[%s%s%s]", takes, has_default ? "; default " : "",
             has_default ? row->initial : "");
    int length = printf("  %-*s  %s", OPTION_COLUMNS, option, row->help);
    if ((size_t)length + 1 + strlen(detail) > LINE_COLUMNS)
        printf("\n  %-*s ", OPTION_COLUMNS, "");
    printf(" %s\n", detail);
}

void dj_config_print_help(void)
{
    const row_t *row = rows;
    for (size_t group = 0; group < GROUPS; group++) {
        printf("%s%s:\n", group ? "\n" : "", groups[group].title);
        for (unsigned i = 0; i < groups[group].rows; i++)
            print_help_row(row++);
    }
    printf("\nEach option is also a variable: --log info is DJINN_LOG=info.\n");
}

static void print_cell(const char *text)
{
    for (; *text; text++)
        printf(*text == '|' ? "\\|" : "%c", *text);
}

static void print_markdown_row(const row_t *row)
{
    char option[NAME_BYTES], variable[NAME_BYTES], takes[128];
    spell(row->name, true, option);
    spell(row->name, false, variable);
    describe(row, takes, sizeof takes);
    printf("| `%s` | `%s` | ", option, variable);
    print_cell(takes);
    printf(row->initial[0] ? " | `%s` | " : " |%s | ", row->initial);
    print_cell(row->help);
    printf(" |\n");
}

void dj_config_print_markdown(void)
{
    const row_t *row = rows;
    printf("# Configuration\n\n"
           "Every setting is an option and a variable of the environment; the option wins. An\n"
           "unknown variable warns and names the nearest one; an unknown option and a bad value\n"
           "stop the start. This page is printed from the table in `runtime/base/config.h`.\n");
    for (size_t group = 0; group < GROUPS; group++) {
        printf("\n## %s\n\n"
               "| option | variable | takes | default | meaning |\n"
               "| --- | --- | --- | --- | --- |\n",
               groups[group].title);
        for (unsigned i = 0; i < groups[group].rows; i++)
            print_markdown_row(row++);
    }
}

static const char *group_of(unsigned index)
{
    size_t group = 0;
    while (index >= groups[group].rows)
        index -= groups[group++].rows;
    return groups[group].title;
}

bool dj_config_row(unsigned index, dj_config_row_t *row)
{
    if (index >= ROWS)
        return false;
    const row_t *from = &rows[index];
    const bool has_choices = from->kind == TEXT && from->allowed[0];
    *row = (dj_config_row_t){.group = group_of(index),
                             .initial = from->initial,
                             .help = from->help,
                             .choices = has_choices ? from->allowed : "",
                             .is_flag = from->kind == FLAG};
    spell(from->name, true, row->option);
    spell(from->name, false, row->variable);
    describe(from, row->takes, sizeof row->takes);
    return true;
}

const char *dj_environment(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}
