/* completion.c - djinn completion: scripts for bash, zsh and fish.
 *
 * Nothing is listed here: commands come from dj_commands, options and their choices from the
 * configuration table. Each script finds what was typed so far as one line, "djinn plan show ", and
 * matches it against the rows: those of two words first, then groups, then those of one. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "launcher/command.h"
#include "runtime/base/config.h"

/* Programs beside djinn take the table's options and these. */
static const struct {
    const char *name, *options;
} programs[] = {
    {"djinn-run", "--help --version"},
    {"djinn-server", "--help --version"},
    {"djinn-selftest", "--json --only --list --gpu-tests --limit-s --help --version"},
};
#define PROGRAMS (sizeof programs / sizeof programs[0])

/* ---- reading a synopsis ---- */

static bool is_table(const char *word, int length)
{
    return length == 8 && memcmp(word, "--OPTION", 8) == 0;
}

static int word_length(const char *text)
{
    return (int)strcspn(text, " []|");
}

void dj_synopsis_walk(const char *synopsis, dj_synopsis_visit_t visit, void *context)
{
    bool after_option = false;
    for (const char *at = synopsis; *at;) {
        int length = word_length(at);
        if (length == 0) {
            if (*at == '[' || *at == ']')
                after_option = false;
            at++;
            continue;
        }
        if (is_table(at, length))
            visit(context, DJ_SYNOPSIS_TABLE, at, length);
        else if (strncmp(at, "--", 2) == 0)
            visit(context, DJ_SYNOPSIS_OPTION, at, length);
        else if (strncmp(at, "FILE", 4) == 0)
            visit(context, DJ_SYNOPSIS_FILE, at, length);
        else if (!after_option && at[0] >= 'a' && at[0] <= 'z')
            visit(context, DJ_SYNOPSIS_WORD, at, length);
        after_option = after_option || strncmp(at, "--", 2) == 0;
        at += length;
    }
}

typedef struct found {
    bool table, file;
} found_t;

static void note(void *context, dj_synopsis_kind_t kind, const char *word, int length)
{
    found_t *found = context;
    found->table |= kind == DJ_SYNOPSIS_TABLE;
    found->file |= kind == DJ_SYNOPSIS_FILE;
}

static void print_word(void *context, dj_synopsis_kind_t kind, const char *word, int length)
{
    if (kind == DJ_SYNOPSIS_OPTION || kind == DJ_SYNOPSIS_WORD)
        printf(" %.*s", length, word);
}

static found_t look(const char *synopsis)
{
    found_t found = {0};
    dj_synopsis_walk(synopsis, note, &found);
    return found;
}

/* ---- the rows ---- */

static const char *second_word(const dj_command_t *row)
{
    const char *blank = strchr(row->name, ' ');
    return blank ? blank + 1 : NULL;
}

static int first_length(const dj_command_t *row)
{
    return (int)strcspn(row->name, " ");
}

static bool same_first(const dj_command_t *a, const dj_command_t *b)
{
    return first_length(a) == first_length(b) &&
           memcmp(a->name, b->name, (size_t)first_length(a)) == 0;
}

/* Whether no row above has the same first word. */
static bool is_first(const dj_command_t *row)
{
    return row == dj_commands || !same_first(row - 1, row);
}

static void print_commands(void)
{
    for (const dj_command_t *row = dj_commands; row->name; row++) {
        if (is_first(row))
            printf("%.*s ", first_length(row), row->name);
    }
}

static void print_seconds(const dj_command_t *first)
{
    for (const dj_command_t *row = first; row->name && same_first(row, first); row++)
        printf("%s ", second_word(row));
}

/* In quotes of a shell: no word of the tables may end them. */
static void print_plain(const char *text, const char *avoided)
{
    for (; *text; text++)
        putchar(strchr(avoided, *text) ? ' ' : *text);
}

static void print_choices(const char *choices)
{
    print_plain(choices, "|");
}

/* case branches of bash and zsh: the values that the option before takes. */
static void print_choice_cases(const char *open, const char *close)
{
    dj_config_row_t row;
    for (unsigned i = 0; dj_config_row(i, &row); i++) {
        if (row.choices[0]) {
            printf("    %s) %s", row.option, open);
            print_choices(row.choices);
            printf("%s ;;\n", close);
        }
    }
}

static void print_programs(void)
{
    fputs("djinn", stdout);
    for (size_t i = 0; i < PROGRAMS; i++)
        printf(" %s", programs[i].name);
}

/* case branches of bash and zsh: what a program takes. */
static void print_program_cases(const char *format)
{
    for (size_t i = 0; i < PROGRAMS; i++)
        printf(format, programs[i].name, programs[i].options);
}

/* ---- bash ---- */

static void print_bash_row(const dj_command_t *row)
{
    found_t found = look(row->synopsis);
    printf("    'djinn %s '*) words=\"%s", row->name, found.table ? "$_djinn_options" : "");
    dj_synopsis_walk(row->synopsis, print_word, NULL);
    printf("%s\"%s ;;\n", second_word(row) ? "" : " --help", found.file ? " files=yes" : "");
}

static void print_bash(void)
{
    dj_config_row_t option;
    fputs("# bash completion of the djinn programs; source it or put it where bash looks\n"
          "_djinn_options='\n",
          stdout);
    for (unsigned i = 0; dj_config_row(i, &option); i++)
        puts(option.option);
    fputs("'\n"
          "_djinn() {\n"
          "    local word=\"${COMP_WORDS[COMP_CWORD]}\" before=\"${COMP_WORDS[COMP_CWORD - 1]}\"\n"
          "    local line=\"${COMP_WORDS[*]:0:COMP_CWORD} \" words= files=\n"
          "    line=\"${line##*/}\"\n"
          "    COMPREPLY=()\n"
          "    [[ $word == = ]] && word=\n"
          "    [[ $before == = ]] && before=\"${COMP_WORDS[COMP_CWORD - 2]}\"\n"
          "    case $before in\n",
          stdout);
    print_choice_cases("words='", "'");
    fputs("    *)\n"
          "    case $line in\n",
          stdout);
    for (const dj_command_t *row = dj_commands; row->name; row++)
        print_bash_row(row);
    for (const dj_command_t *row = dj_commands; row->name; row++) {
        if (!second_word(row) || !is_first(row))
            continue;
        printf("    'djinn %.*s ') words='", first_length(row), row->name);
        print_seconds(row);
        puts("--help' ;;");
    }
    fputs("    'djinn ') words='", stdout);
    print_commands();
    fputs("--help --version' ;;\n"
          "    'djinn '*) ;;\n",
          stdout);
    print_program_cases("    '%s '*) words=\"$_djinn_options %s\" files=yes ;;\n");
    fputs("    esac ;;\n"
          "    esac\n"
          "    [[ $files && $word != -* ]] && return\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
          "}\n"
          "complete -o default -F _djinn ",
          stdout);
    print_programs();
    putchar('\n');
}

/* ---- zsh ---- */

static void print_zsh_row(const dj_command_t *row)
{
    found_t found = look(row->synopsis);
    printf("    'djinn %s '*) items=(%s", row->name, found.table ? "$options" : "");
    dj_synopsis_walk(row->synopsis, print_word, NULL);
    printf("%s)%s ;;\n", second_word(row) ? "" : " --help", found.file ? " files=yes" : "");
}

/* Descriptions of zsh: the name ends at the first colon, so the help's own are harmless. */
static void print_zsh_groups(void)
{
    for (const dj_command_t *row = dj_commands; row->name; row++) {
        if (!second_word(row) || !is_first(row))
            continue;
        printf("    'djinn %.*s ') items=(", first_length(row), row->name);
        for (const dj_command_t *at = row; at->name && same_first(at, row); at++) {
            printf("'%s:", second_word(at));
            print_plain(at->about, "'");
            fputs("' ", stdout);
        }
        puts("--help) ;;");
    }
}

static void print_zsh(void)
{
    dj_config_row_t option;
    fputs("#compdef ", stdout);
    print_programs();
    fputs("\n"
          "_djinn() {\n"
          "    local before=${words[CURRENT-1]} files= line\n"
          "    local -a options items\n"
          "    line=\"${words[1]:t} ${(j: :)words[2,CURRENT-1]}\"\n"
          "    [[ $line == *' ' ]] || line=\"$line \"\n"
          "    options=(\n",
          stdout);
    for (unsigned i = 0; dj_config_row(i, &option); i++) {
        printf("    '%s:", option.option);
        print_plain(option.help, "'");
        puts("'");
    }
    fputs("    )\n"
          "    case $before in\n",
          stdout);
    print_choice_cases("items=(", ")");
    fputs("    *)\n"
          "    case $line in\n",
          stdout);
    for (const dj_command_t *row = dj_commands; row->name; row++)
        print_zsh_row(row);
    print_zsh_groups();
    fputs("    'djinn ') items=(", stdout);
    print_commands();
    fputs("--help --version) ;;\n"
          "    'djinn '*) ;;\n",
          stdout);
    print_program_cases("    '%s '*) items=($options %s) files=yes ;;\n");
    fputs("    esac ;;\n"
          "    esac\n"
          "    if [[ $files && ${words[CURRENT]} != -* ]]; then\n"
          "        _files\n"
          "    else\n"
          "        _describe djinn items\n"
          "    fi\n"
          "}\n"
          "if [[ ${funcstack[1]} == _djinn ]]; then _djinn \"$@\"; else compdef _djinn ",
          stdout);
    print_programs();
    puts("; fi");
}

/* ---- fish ---- */

static void print_fish_quoted(const char *text)
{
    putchar('\'');
    print_plain(text, "'\\");
    putchar('\'');
}

/* The table's options for whatever `where` tells fish. */
static void print_fish_options(const char *where)
{
    dj_config_row_t row;
    for (unsigned i = 0; dj_config_row(i, &row); i++) {
        printf("complete %s -l %s -d ", where, row.option + 2);
        print_fish_quoted(row.help);
        if (row.choices[0]) {
            fputs(" -x -a '", stdout);
            print_choices(row.choices);
            fputs("'", stdout);
        } else if (!row.is_flag) {
            fputs(" -r", stdout);
        }
        putchar('\n');
    }
}

static void print_fish_word(void *context, dj_synopsis_kind_t kind, const char *word, int length)
{
    const dj_command_t *row = context;
    if (kind != DJ_SYNOPSIS_OPTION && kind != DJ_SYNOPSIS_WORD)
        return;
    printf("complete -c djinn -n '_djinn_at %s'", row->name);
    if (kind == DJ_SYNOPSIS_OPTION)
        printf(" -l %.*s\n", length - 2, word + 2);
    else
        printf(" -f -a %.*s\n", length, word);
}

static void print_fish_row(const dj_command_t *row)
{
    char where[64];
    const char *second = second_word(row);
    if (is_first(row)) {
        printf("complete -c djinn -n '_djinn_at .' -f -a %.*s", first_length(row), row->name);
        if (!second) {
            fputs(" -d ", stdout);
            print_fish_quoted(row->about);
        }
        putchar('\n');
    }
    if (second) {
        printf("complete -c djinn -n '_djinn_at %.*s .' -f -a %s -d ", first_length(row), row->name,
               second);
        print_fish_quoted(row->about);
        putchar('\n');
    }
    found_t found = look(row->synopsis);
    snprintf(where, sizeof where, "-c djinn -n '_djinn_at %s'", row->name);
    if (found.table)
        print_fish_options(where);
    if (!found.file)
        printf("complete %s -f\n", where);
    dj_synopsis_walk(row->synopsis, print_fish_word, (void *)row);
}

static void print_fish(void)
{
    fputs("# fish completion of the djinn programs\n"
          "function _djinn_at # whether these words were typed behind djinn; a dot: and no more\n"
          "    set -l typed (commandline -opc)\n"
          "    set -l wanted $argv\n"
          "    if test \"$argv[-1]\" = .\n"
          "        set -e wanted[-1]\n"
          "        test (count $typed) -eq (math (count $wanted) + 1); or return 1\n"
          "    end\n"
          "    set -e typed[1]\n"
          "    string match -q -- \"$wanted *\" \"$typed \"\n"
          "end\n",
          stdout);
    for (const dj_command_t *row = dj_commands; row->name; row++)
        print_fish_row(row);
    for (size_t i = 0; i < PROGRAMS; i++) {
        char where[64];
        snprintf(where, sizeof where, "-c %s", programs[i].name);
        print_fish_options(where);
        for (const char *at = programs[i].options; *at; at += strcspn(at, " "), at += *at == ' ')
            printf("complete %s -l %.*s\n", where, (int)strcspn(at, " ") - 2, at + 2);
    }
}

int dj_completion_main(int argc, char **argv)
{
    static const struct {
        const char *shell;
        void (*print)(void);
    } shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
    for (size_t i = 0; argc == 3 && i < sizeof shells / sizeof shells[0]; i++) {
        if (strcmp(argv[2], shells[i].shell) == 0) {
            shells[i].print();
            return 0;
        }
    }
    fputs("djinn: completion is there for bash, zsh and fish: djinn completion bash\n", stderr);
    return 2;
}
