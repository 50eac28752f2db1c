/* fuzz_info.c - `djinn info`: the server's JSON, printed as a table. Input: the text. */
#include "launcher/info.h"
#include "tests/fuzz/fuzz.h"

static FILE *table;
static char *text;
static size_t length;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *json = strndup((const char *)data, size);
    table = open_memstream(&text, &length);
    FUZZ_ASSERT(json && table);
    if (dj_info_print(json, table) != DJ_OK)
        fuzz_check_text(dj_error_text());
    fclose(table);
    for (size_t i = 0; i < length; i++) /* nothing that a terminal would obey */
        FUZZ_ASSERT(text[i] == '\n' || ((unsigned char)text[i] >= ' ' && text[i] != 0x7f));
    free(text);
    free(json);
    return 0;
}
