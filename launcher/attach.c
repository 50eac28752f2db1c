/* attach.c - see attach.h. */
#include "launcher/attach.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/control.h"
#include "launcher/credential.h"
#include "runtime/base/clock.h"

/* A hello as a tool: rank 0 welcomes it whether workers are there or not. */
static dj_status_t look(const char *address, const char *token_text, uint64_t deadline_ns)
{
    dj_hello_t hello = {.role = DJ_ROLE_TOOL, .uid = (uint32_t)getuid(), .pid = (uint32_t)getpid()};
    dj_control_t *control;
    dj_frame_t frame;
    const void *body;
    uint8_t token[32];
    dj_status_t status = dj_token_parse(token_text, token);
    if (status == DJ_OK)
        status = dj_control_connect(address, deadline_ns, &control);
    if (status != DJ_OK)
        return status;
    status = dj_control_greet(control, token, &hello, NULL, deadline_ns, &frame, &body);
    dj_control_close(control);
    return status;
}

dj_status_t dj_attach_run(const dj_arguments_t *arguments)
{
    const dj_config_t *config = &arguments->config;
    uint64_t deadline_ns = dj_clock_ns() + config->connect_ms * DJ_NS_PER_MS;
    char address[DJ_ENDPOINT_TEXT_MAX], token[65];
    if (!arguments->command)
        return dj_fail(DJ_ERR_INVALID, "--attach wants a command: djinn-run --attach %s -- COMMAND",
                       config->attach);
    dj_status_t status = dj_address_read(config->attach, deadline_ns, address);
    if (status == DJ_OK)
        status = dj_credential_known(config, token);
    if (status == DJ_OK)
        status = look(address, token, deadline_ns);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "--attach");
    if (config->dry_run) {
        printf("the command would run here with DJINN_ADDRESS=%s\n", address);
        exit(fflush(stdout) == 0 ? 0 : 1);
    }
    if (setenv("DJINN_ADDRESS", address, 1) != 0 || setenv("DJINN_AUTH", config->auth, 1) != 0 ||
        (config->token_file[0] && setenv("DJINN_TOKEN_FILE", config->token_file, 1) != 0) ||
        (config->token[0] && setenv("DJINN_TOKEN", config->token, 1) != 0))
        return dj_fail(DJ_ERR_MEMORY, "no memory for the environment");
    execvp(arguments->command[0], arguments->command);
    int wrong = errno;
    fprintf(stderr, "djinn-run: cannot run %s: %s\n", arguments->command[0], strerror(wrong));
    exit(wrong == ENOENT ? 127 : 126);
}
