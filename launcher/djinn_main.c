/* djinn_main.c - the djinn command: what a user asks from a terminal. Its words are the table
 * dj_commands below.
 *
 * Exit status: 0, 1 when the server could not be asked, a check of the doctor failed or a plan is
 * not to be had, 2 for wrong use and files that cannot be read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/djinn.h"
#include "launcher/command.h"
#include "launcher/credential.h"
#include "launcher/doctor/doctor.h"
#include "launcher/info.h"
#include "launcher/plan/plan.h"
#include "launcher/topo/topo.h"
#include "runtime/base/log.h"

static int wrong_use(const char *text, const char *word)
{
    fprintf(stderr, "djinn: %s%s; djinn --help shows what there is\n", text, word);
    return 2;
}

static dj_status_t info_options(int argc, char **argv, dj_config_t *config, bool *json_p)
{
    int at = 2;
    dj_status_t status = dj_config_load(config, 0, NULL, NULL);
    while (status == DJ_OK && at < argc) {
        if (strcmp(argv[at], "--json") == 0) {
            *json_p = true;
            at++;
        } else if (strncmp(argv[at], "--", 2) == 0 && strlen(argv[at]) > 2 &&
                   strcmp(argv[at], "--help") != 0 && strcmp(argv[at], "--version") != 0) {
            int end = at + 1;
            for (; end < argc && strcmp(argv[end], "--json") != 0; end++)
                ;
            status = dj_config_options(config, end, argv, &at);
        } else {
            return dj_fail(DJ_ERR_INVALID, "%s takes no '%.64s'", argv[1], argv[at]);
        }
    }
    return status;
}

/* The library reads these from the environment, which options win over. */
static bool hand_down(const dj_config_t *config)
{
    bool good = setenv("DJINN_AUTH", config->auth, 1) == 0;
    if (config->token_file[0])
        good = good && setenv("DJINN_TOKEN_FILE", config->token_file, 1) == 0;
    return good;
}

static int info(int argc, char **argv)
{
    dj_config_t config;
    char found[128], *json = NULL;
    bool as_json = false;
    if (info_options(argc, argv, &config, &as_json) != DJ_OK)
        return wrong_use(dj_error_text(), "");
    dj_log_init(config.log, "djinn");
    const char *address = config.address;
    if (!address[0]) {
        if (dj_address_find(found, sizeof found) != DJ_OK) {
            fprintf(stderr, "djinn: no server is known here; start djinn-server, or name one with "
                            "--address HOST:PORT or DJINN_ADDRESS\n");
            return 1;
        }
        address = found;
    }
    djinn_options_t options = {.abi_version = DJINN_ABI_VERSION,
                               .address = address,
                               .token = config.token[0] ? config.token : NULL};
    if (!hand_down(&config) || djinn_info(&options, &json) != DJINN_OK) {
        fprintf(stderr, "djinn: %s\n", djinn_error());
        return 1;
    }
    dj_status_t status = DJ_OK;
    if (as_json)
        puts(json);
    else
        status = dj_info_print(json, stdout);
    free(json);
    if (status != DJ_OK)
        fprintf(stderr, "djinn: %s\n", dj_error_text());
    return status == DJ_OK ? 0 : 1;
}

static int config(int argc, char **argv)
{
    if (argc == 2)
        dj_config_print_help();
    else if (argc == 3 && strcmp(argv[2], "markdown") == 0)
        dj_config_print_markdown();
    else
        return wrong_use("config takes nothing, or markdown, not ", argv[argc - 1]);
    return 0;
}

/* The four words of plan share one function, which looks at the second. */
const dj_command_t dj_commands[] = {
    {"info", "[--json] [--address HOST:PORT] [--OPTION VALUE]...",
     "ranks, devices, sessions, segments and plan hits of a server",
     "Prints ranks, devices, sessions, segments and plan hits of a server: as a table, or "
     "everything as JSON. Without an address the server is the last one that this user started on "
     "this machine.",
     info},
    {"doctor",
     "[--json] [--quick] [--only NAME]... [--list] [--root FOLDER] [--address HOST:PORT] "
     "[--OPTION VALUE]...",
     "whether this machine is fit, what to do, and the path to the server",
     "Tells whether this machine is fit: UCX, torch and Djinn's own programs, GPUs, their driver "
     "and the way of their memory, shared memory, limits and cgroups, kernel and container, "
     "network, launchers (which one is found, and in what order they are looked for), Slurm and "
     "MUNGE, files, and the server that is known. Each check is ok, info, warn or fail, with the "
     "next step. --list names the checks; --only takes a check or a group; --quick starts no other "
     "program; --root reads /proc, /sys, /etc, /run and /dev under a folder. Exit status 1 when one "
     "failed, 2 for wrong use.",
     dj_doctor_main},
    {"plan show", "FILE [--program N] [--json] [--svg OUT]",
     "a recorded graph: what it is, needs and costs; a picture of its slab",
     "Reads a recorded graph, as djinn.snapshot() or djinn_snapshot() wrote it: its phase and why, "
     "bytes by how long they live, work and traffic, the peak of its plan against the least "
     "possible, and the nodes that take longest on this machine. --json lists every node; --svg "
     "draws the slab over time, of the program with the highest peak or of --program.",
     dj_plan_main},
    {"plan replay", "FILE [--program N] [--runs N]",
     "plans it, proves the plan and runs it with made-up inputs",
     "Plans it, proves the plan and runs it on this machine's host device with made-up inputs: "
     "predicted and measured peak, and the time of each run. Refuses ops without a kernel there.",
     dj_plan_main},
    {"plan cut", "FILE --stages K [--memory BYTES] [--by bytes|time] [--program N]",
     "cuts it into stages for devices in a row",
     "Cuts it into K stages for devices in a row, with the least bytes crossing or the least time "
     "of the slowest stage; no stage may need more than --memory (bytes; K, M, G and T as "
     "suffixes). Of several programs it cuts the one with the highest peak, or --program.",
     dj_plan_main},
    {"plan solve", "FILE.csv --capacity N [--time SECONDS]",
     "places rows id,lower,upper,size below a capacity",
     "Places the rows of a file with the columns id, lower, upper and size (lifetimes half-open) "
     "below --capacity and prints them with a column offset; exit status 1 when nothing fits in "
     "the time (60 s).",
     dj_plan_main},
    {"topo",
     "[--xml FILE | --synthetic TEXT] [--ranks N|auto] [--device host|cuda] [--gpus LIST] [--json | "
     "--svg OUT]",
     "a machine, and which rank of a server gets what of it; a picture",
     "Shows a machine (packages, NUMA nodes, cores, GPUs, NICs, NVLinks) and the layout of a server "
     "on it: which rank gets which GPU, NIC, cores and memory, and why. Without --xml (what lstopo "
     "2.x writes with --of xml) or --synthetic (hwloc's text, and gpu:N, nic:N, nvlink:GB/S behind "
     "it) it is this machine. --ranks counts as djinn-server -n does; --gpus names those that may "
     "be used, as CUDA_VISIBLE_DEVICES would; --json is for programs and --svg draws.",
     dj_topo_main},
    {"config", "[markdown]", "every option and variable",
     "Lists every option and variable with its default; markdown: as a page.", config},
    {"completion", "bash|zsh|fish", "completion for the shell: source <(djinn completion bash)",
     "Prints completion for a shell: source <(djinn completion bash), source <(djinn completion "
     "zsh), djinn completion fish | source.",
     dj_completion_main},
    {"manual", "FILE", "a page of docs/man with its options filled in, for the build",
     "Prints a page of docs/man with the options and commands filled in.", dj_manual_main},
    {NULL, NULL, NULL, NULL, NULL},
};

static void print_row(const dj_command_t *row, FILE *out)
{
    fprintf(out, "  %s %s\n      %s\n", row->name, row->synopsis, row->about);
}

static void print_usage(FILE *out)
{
    fputs("usage: djinn COMMAND\n", out);
    for (const dj_command_t *row = dj_commands; row->name; row++)
        print_row(row, out);
    fputs("  --version, --help\n", out);
}

/* The first row with that first word. */
static const dj_command_t *find_command(const char *word)
{
    const dj_command_t *row = dj_commands;
    size_t length = strlen(word);
    while (row->name && (strncmp(row->name, word, length) != 0 ||
                         (row->name[length] != '\0' && row->name[length] != ' ')))
        row++;
    return row->name ? row : NULL;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    if (!word[0]) {
        print_usage(stderr);
        return 2;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_usage(stdout);
        return 0;
    }
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        printf("djinn %s\n", DJINN_VERSION);
        return 0;
    }
    const dj_command_t *command = find_command(word);
    if (!command)
        return wrong_use("no such command: ", word);
    if (argc == 3 && strcmp(argv[2], "--help") == 0 && !strchr(command->name, ' ')) {
        fputs("usage: djinn\n", stdout);
        print_row(command, stdout);
        return 0;
    }
    return command->run(argc, argv);
}
