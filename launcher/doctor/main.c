/* main.c - the words of djinn doctor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launcher/credential.h"
#include "launcher/doctor/doctor.h"

static const char usage[] =
    "usage: djinn doctor [--json] [--quick] [--only NAME]... [--list] [--OPTION VALUE]...\n"
    "  checks whether this machine is fit for Djinn, and says what to do where it is not\n"
    "  --json           one JSON object instead of lines (docs/doctor.md)\n"
    "  --quick          nothing that starts another program or may take long\n"
    "  --only NAME      this check alone, or this group; may be repeated\n"
    "  --list           the checks and their groups\n"
    "  --root FOLDER    reads /proc, /sys, /etc, /run and /dev under this folder\n"
    "  --address HOST:PORT, --listen HOST:PORT, ...: see djinn config\n"
    "exit status: 0 no check failed, 1 one failed, 2 wrong use\n";

typedef struct words {
    dj_doctor_t doctor;
    bool list, help;
} words_t;

static dj_status_t take_only(words_t *words, const char *name)
{
    if (words->doctor.n_only == DJ_DOCTOR_ONLY_MAX)
        return dj_fail(DJ_ERR_INVALID, "at most %d times --only", DJ_DOCTOR_ONLY_MAX);
    if (!dj_doctor_knows(name))
        return dj_fail(DJ_ERR_INVALID, "doctor has no check or group '%.64s'; djinn doctor --list",
                       name);
    words->doctor.only[words->doctor.n_only++] = name;
    return DJ_OK;
}

/* One of our own words at argv[*at_p], with its value; *at_p stays when it is none. */
static dj_status_t own_word(int argc, char **argv, int *at_p, words_t *words)
{
    const char *word = argv[*at_p], *value = *at_p + 1 < argc ? argv[*at_p + 1] : NULL;
    bool only = strcmp(word, "--only") == 0, root = strcmp(word, "--root") == 0;
    if (strcmp(word, "--json") == 0)
        words->doctor.as_json = true;
    else if (strcmp(word, "--quick") == 0)
        words->doctor.quick = true;
    else if (strcmp(word, "--list") == 0)
        words->list = true;
    else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        words->help = true;
    else if (!only && !root)
        return DJ_OK;
    else if (!value || !value[0])
        return dj_fail(DJ_ERR_INVALID, "%s takes a %s", word, only ? "name" : "folder");
    *at_p += 1 + (only || root);
    if (root)
        words->doctor.root = value;
    return only ? take_only(words, value) : DJ_OK;
}

static bool is_own(const char *word)
{
    static const char *const own[] = {"--json", "--quick", "--list", "--help",
                                      "-h",     "--only",  "--root"};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (strcmp(word, own[i]) == 0)
            return true;
    return false;
}

/* Our words may stand between options, whose parser is therefore given the words up to the next
 * of ours. */
static dj_status_t read_words(int argc, char **argv, dj_config_t *config, words_t *words)
{
    int at = 2;
    dj_status_t status = dj_config_load(config, 0, NULL, NULL);
    while (status == DJ_OK && at < argc) {
        int before = at, end = at + 1;
        status = own_word(argc, argv, &at, words);
        if (status != DJ_OK || at > before)
            continue;
        while (end < argc && !is_own(argv[end]))
            end++;
        if (strncmp(argv[at], "--", 2) == 0 && argv[at][2])
            status = dj_config_options(config, end, argv, &at);
        if (status == DJ_OK && at == before)
            return dj_fail(DJ_ERR_INVALID, "doctor takes no '%.64s'", argv[at]);
    }
    return status;
}

/* The library reads these from the environment, which options win over. */
static bool hand_down(const dj_config_t *config)
{
    char connect_ms[32];
    snprintf(connect_ms, sizeof connect_ms, "%llu", (unsigned long long)config->connect_ms);
    bool good = setenv("DJINN_AUTH", config->auth, 1) == 0 &&
                setenv("DJINN_CONNECT_MS", connect_ms, 1) == 0 &&
                setenv("DJINN_TRANSPORTS", config->transports, 1) == 0;
    if (config->token_file[0])
        good = good && setenv("DJINN_TOKEN_FILE", config->token_file, 1) == 0;
    return good;
}

/* The server of this user's last start. Looks first, because asking for it would make ~/.djinn. */
static bool find_address(char *address, size_t room)
{
    char path[4096];
    const char *home = dj_environment("HOME");
    return home && snprintf(path, sizeof path, "%s/.djinn", home) < (int)sizeof path &&
           access(path, F_OK) == 0 && dj_address_find(address, room) == DJ_OK;
}

int dj_doctor_main(int argc, char **argv)
{
    dj_config_t config;
    char found[128];
    words_t words = {.doctor.root = ""};
    dj_doctor_t *doctor = &words.doctor;
    if (read_words(argc, argv, &config, &words) != DJ_OK) {
        fprintf(stderr, "djinn: %s; djinn doctor --help shows what there is\n", dj_error_text());
        return 2;
    }
    if (words.help) {
        fputs(usage, stdout);
        return 0;
    }
    if (words.list) {
        dj_doctor_list(stdout);
        return 0;
    }
    doctor->config = &config;
    doctor->server = (djinn_options_t){.abi_version = DJINN_ABI_VERSION,
                                       .token = config.token[0] ? config.token : NULL};
    if (config.address[0])
        doctor->server.address = config.address;
    else if (find_address(found, sizeof found))
        doctor->server.address = found;
    if (!hand_down(&config)) {
        fputs("djinn: the environment is full\n", stderr);
        return 1;
    }
    return dj_doctor_run(doctor, stdout) ? 0 : 1;
}
