/* djinn_main.c - the djinn command: what a user asks from a terminal.
 *
 * Exit status: 0, 1 when the server could not be asked, a check of the doctor failed or a plan is not to be
 * had, 2 for wrong use and files that cannot be read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/djinn.h"
#include "launcher/credential.h"
#include "launcher/doctor.h"
#include "launcher/info.h"
#include "launcher/plan.h"
#include "runtime/base/log.h"

static const char usage[] =
    "usage: djinn COMMAND\n"
    "  info [--json] [--address HOST:PORT] [--OPTION VALUE]...\n"
    "                   ranks, devices, sessions, segments and plan hits of a server\n"
    "  doctor [--json] [--address HOST:PORT] [--OPTION VALUE]...\n"
    "                   whether this machine is fit, what to do, and the path to the server\n"
    "  plan show|replay|cut|solve FILE ...\n"
    "                   a recorded graph: what it is, needs and costs; djinn plan --help\n"
    "  config [markdown]\n"
    "                   every option and variable\n"
    "  completion bash  completion for the shell: source <(djinn completion bash)\n"
    "  --version, --help\n";

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

static int doctor(int argc, char **argv)
{
    dj_config_t config;
    char found[128];
    bool as_json = false;
    if (info_options(argc, argv, &config, &as_json) != DJ_OK)
        return wrong_use(dj_error_text(), "");
    djinn_options_t server = {.abi_version = DJINN_ABI_VERSION,
                              .token = config.token[0] ? config.token : NULL};
    if (config.address[0])
        server.address = config.address;
    else if (dj_address_find(found, sizeof found) == DJ_OK)
        server.address = found;
    setenv("DJINN_TRANSPORTS", config.transports, 1);
    return hand_down(&config) && dj_doctor_run(&server, as_json, stdout) ? 0 : 1;
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

static int completion(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[2], "bash") != 0)
        return wrong_use("completion is there for bash: djinn completion bash", "");
    fputs("# bash completion of the djinn programs; source it or put it where bash looks\n"
          "_djinn_options='\n",
          stdout);
    dj_config_print_words();
    fputs(
        "'\n"
        "_djinn() {\n"
        "    local word=\"${COMP_WORDS[COMP_CWORD]}\" words=\"$_djinn_options --help --version\"\n"
        "    local program=\"${COMP_WORDS[0]##*/}\"\n"
        "    if [[ $program == djinn && $COMP_CWORD == 1 ]]; then\n"
        "        words='info doctor plan config completion --help --version'\n"
        "    elif [[ $program == djinn ]]; then\n"
        "        case \"${COMP_WORDS[1]}\" in\n"
        "        info|doctor) words=\"$_djinn_options --json\" ;;\n"
        "        plan)\n"
        "            case \"$COMP_CWORD ${COMP_WORDS[2]}\" in\n"
        "            2\\ *) words='show replay cut solve --help' ;;\n"
        "            *\\ show) words='--json --svg --program' ;;\n"
        "            *\\ replay) words='--program --runs' ;;\n"
        "            *\\ solve) words='--capacity --time' ;;\n"
        "            *\\ cut) words='--stages --memory --by --program' ;;\n"
        "            *) words= ;;\n"
        "            esac\n"
        "            if ((COMP_CWORD > 2)) && [[ $word != -* ]]; then\n"
        "                COMPREPLY=()\n"
        "                return\n"
        "            fi ;;\n"
        "        config) words=markdown ;;\n"
        "        completion) words=bash ;;\n"
        "        *) words= ;;\n"
        "        esac\n"
        "    elif [[ $word != -* ]]; then\n"
        "        COMPREPLY=()\n"
        "        return\n"
        "    fi\n"
        "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
        "}\n"
        "complete -o default -F _djinn djinn djinn-run djinn-server\n",
        stdout);
    return 0;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (!command[0]) {
        fputs(usage, stderr);
        return 2;
    }
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (strcmp(command, "--version") == 0 || strcmp(command, "-V") == 0) {
        printf("djinn %s\n", DJINN_VERSION);
        return 0;
    }
    if (strcmp(command, "info") == 0)
        return info(argc, argv);
    if (strcmp(command, "doctor") == 0)
        return doctor(argc, argv);
    if (strcmp(command, "plan") == 0)
        return dj_plan_main(argc, argv);
    if (strcmp(command, "config") == 0)
        return config(argc, argv);
    if (strcmp(command, "completion") == 0)
        return completion(argc, argv);
    return wrong_use("no such command: ", command);
}
