/* print_configuration.c - prints docs/configuration.md from the table of settings. */
#include "runtime/base/config.h"

int main(void)
{
    dj_config_print_markdown();
    return 0;
}
