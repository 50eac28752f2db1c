/* manual.c - djinn manual: a page of docs/man with what the tables know filled in.
 *
 * The prose of a page is written by hand; a line of its own stands where the tables come in:
 *     .\" djinn: options     every option of the configuration table, by groups
 *     .\" djinn: synopsis    the words of the djinn command, one a line
 *     .\" djinn: commands    each with its paragraph
 * and @VERSION@ in a line is Djinn's. The build makes the installed pages so. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "launcher/command.h"
#include "runtime/base/config.h"

enum { LINE_MAX_BYTES = 512 };

/* A character of text as roff wants it. */
static void put(char c, FILE *out)
{
    if (c == '\\')
        fputs("\\e", out);
    else if (c == '-')
        fputs("\\-", out);
    else
        fputc(c, out);
}

static size_t span_of_option(const char *text)
{
    size_t length = 2;
    while (islower((unsigned char)text[length]) || (text[length] == '-' && text[length + 1] != '-'))
        length++;
    return length > 2 ? length : 0;
}

/* Prose: options in bold. The text begins a line or lies inside one. */
static void put_prose(const char *text, FILE *out)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    while (*text) {
        size_t length = strncmp(text, "--", 2) == 0 ? span_of_option(text) : 0;
        if (length)
            fputs("\\fB", out);
        for (size_t i = 0; i < (length ? length : 1); i++)
            put(text[i], out);
        if (length)
            fputs("\\fP", out);
        text += length ? length : 1;
    }
}

/* A synopsis: capitals are values, the rest of the words is typed as it stands. */
static void put_synopsis(const char *name, const char *synopsis, FILE *out)
{
    fputs("\\fB", out);
    for (; *name; name++)
        put(*name, out);
    fputs("\\fP ", out);
    while (*synopsis) {
        size_t length = strcspn(synopsis, " []|");
        const char *first = synopsis + strspn(synopsis, "-");
        if (length)
            fputs(isupper((unsigned char)*first) ? "\\fI" : "\\fB", out);
        for (size_t i = 0; i < length; i++)
            put(synopsis[i], out);
        if (length)
            fputs("\\fP", out);
        for (synopsis += length; *synopsis && strchr(" []|", *synopsis); synopsis++)
            put(*synopsis, out);
    }
    fputc('\n', out);
}

static void put_option(const dj_config_row_t *row, FILE *out)
{
    fputs(".TP\n\\fB", out);
    for (const char *at = row->option; *at; at++)
        put(*at, out);
    fputs("\\fP\n", out);
    put_prose(row->help, out);
    fputs(".\nTakes ", out);
    put_prose(row->takes, out);
    if (row->initial[0]) {
        fputs("; default ", out);
        put_prose(row->initial, out);
    }
    fprintf(out, ".\nVariable %s.\n", row->variable);
}

static void put_options(FILE *out)
{
    const char *group = "";
    dj_config_row_t row;
    for (unsigned i = 0; dj_config_row(i, &row); i++) {
        if (strcmp(group, row.group) != 0)
            fprintf(out, ".SS %s\n", row.group);
        group = row.group;
        put_option(&row, out);
    }
}

static void put_all_synopses(FILE *out)
{
    for (const dj_command_t *row = dj_commands; row->name; row++) {
        char name[64];
        snprintf(name, sizeof name, "djinn %s", row->name);
        put_synopsis(name, row->synopsis, out);
        fputs(row[1].name ? ".br\n" : "", out);
    }
}

static void put_commands(FILE *out)
{
    for (const dj_command_t *row = dj_commands; row->name; row++) {
        fputs(".TP\n", out);
        put_synopsis(row->name, row->synopsis, out);
        put_prose(row->manual, out);
        fputc('\n', out);
    }
}

static void put_line(const char *line, FILE *out)
{
    static const char mark[] = "@VERSION@";
    const char *found;
    while ((found = strstr(line, mark))) {
        fprintf(out, "%.*s%s", (int)(found - line), line, DJINN_VERSION);
        line = found + sizeof mark - 1;
    }
    fputs(line, out);
}

static void fill(FILE *page, FILE *out)
{
    static const struct {
        const char *line;
        void (*put)(FILE *out);
    } marks[] = {{".\\\" djinn: options\n", put_options},
                 {".\\\" djinn: synopsis\n", put_all_synopses},
                 {".\\\" djinn: commands\n", put_commands}};
    char line[LINE_MAX_BYTES];
    while (fgets(line, sizeof line, page)) {
        size_t at = 0, count = sizeof marks / sizeof marks[0];
        while (at < count && strcmp(line, marks[at].line) != 0)
            at++;
        if (at < count)
            marks[at].put(out);
        else
            put_line(line, out);
    }
}

int dj_manual_main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("djinn: manual takes one page, as docs/man/djinn-run.1\n", stderr);
        return 2;
    }
    FILE *page = fopen(argv[2], "re");
    if (page)
        fill(page, stdout);
    if (!page || ferror(page) || fflush(stdout) != 0) {
        fprintf(stderr, "djinn: %.200s: %s\n", argv[2], strerror(errno));
        return 2;
    }
    fclose(page);
    return 0;
}
