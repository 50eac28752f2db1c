/* main.c - the words of djinn topo. */
#include "launcher/topo/topo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/placement/layout.h"
#include "runtime/base/config.h"

static const char usage[] =
    "usage: djinn topo [--xml FILE | --synthetic TEXT] [--ranks N|auto] [--device host|cuda]\n"
    "                  [--gpus LIST] [--json | --svg OUT]\n"
    "  A machine: packages, NUMA nodes, cores, GPUs, NICs; and the layout of a server on it: "
    "which\n"
    "  rank gets which GPU, NIC, cores and memory, and why.\n"
    "  --xml FILE        of another machine: what lstopo 2.x wrote there with --of xml\n"
    "  --synthetic TEXT  a made-up machine in hwloc's words, and gpu:N, nic:N and nvlink:GB/S, as\n"
    "                    'pack:2 numa:4 core:16 pu:2 gpu:8 nic:8 nvlink:300'\n"
    "  --ranks N         as djinn-server -n; above 1, rank 0 only coordinates; auto: one a GPU\n"
    "  --device KIND     of the ranks; cuda where there are GPUs that may be used\n"
    "  --gpus LIST       those that may be used, as CUDA_VISIBLE_DEVICES takes it\n"
    "  --json            for programs\n"
    "  --svg OUT         a picture\n"
    "Exit status 2 for wrong use and files that cannot be read.\n";

typedef struct words {
    const char *xml, *synthetic, *ranks, *device, *gpus, *svg;
    bool json;
} words_t;

static dj_status_t parse(int argc, char **argv, words_t *words)
{
    const struct {
        const char *name;
        const char **value;
    } options[] = {{"--xml", &words->xml},     {"--synthetic", &words->synthetic},
                   {"--ranks", &words->ranks}, {"--device", &words->device},
                   {"--gpus", &words->gpus},   {"--svg", &words->svg}};
    for (int i = 2; i < argc; i++) {
        const char **value = NULL;
        if (strcmp(argv[i], "--json") == 0) {
            words->json = true;
            continue;
        }
        for (size_t k = 0; k < sizeof options / sizeof options[0]; k++) {
            if (strcmp(argv[i], options[k].name) == 0)
                value = options[k].value;
        }
        if (!value)
            return dj_fail(DJ_ERR_INVALID, "topo takes no '%.64s'", argv[i]);
        if (++i == argc)
            return dj_fail(DJ_ERR_INVALID, "%s needs a value", argv[i - 1]);
        *value = argv[i];
    }
    if (words->xml && words->synthetic)
        return dj_fail(DJ_ERR_INVALID, "a machine comes from --xml or from --synthetic, not both");
    if (words->json && words->svg)
        return dj_fail(DJ_ERR_INVALID, "an answer is --json or --svg, not both");
    return DJ_OK;
}

static dj_status_t choose_ranks(const words_t *words, uint32_t gpus, bool devices,
                                dj_layout_request_t *request)
{
    unsigned long count = !devices ? 1 : gpus > 1 ? gpus + 1 : 1;
    if (words->ranks && strcmp(words->ranks, "auto") != 0) {
        char *end;
        errno = 0;
        count = strtoul(words->ranks, &end, 10);
        if (words->ranks[0] < '0' || words->ranks[0] > '9' || *end != '\0' || errno != 0 ||
            count < 1 || count > 4096)
            return dj_fail(DJ_ERR_INVALID,
                           "--ranks takes auto or a number from 1 to 4096, not '%.32s'",
                           words->ranks);
    }
    request->coordinator = count > 1;
    request->n_ranks = request->count = (uint32_t)count - request->coordinator;
    return DJ_OK;
}

static dj_status_t choose(const words_t *words, const dj_topology_t *topology,
                          dj_layout_request_t *request)
{
    if (words->gpus) {
        request->visible = words->gpus;
        request->visible_name = "--gpus";
    } else if (topology->is_this_machine) {
        dj_layout_visible(topology, request);
    }
    uint32_t usable = (uint32_t)__builtin_popcountll(dj_gpus_visible(topology, request->visible));
    request->devices = usable > 0;
    if (words->device && strcmp(words->device, "host") != 0 && strcmp(words->device, "cuda") != 0)
        return dj_fail(DJ_ERR_INVALID, "--device takes host or cuda, not '%.32s'", words->device);
    if (words->device)
        request->devices = words->device[0] == 'c';
    return choose_ranks(words, usable, request->devices, request);
}

static dj_status_t open_topology(const words_t *words, dj_topology_t **topology_p)
{
    if (words->xml)
        return dj_topology_read(words->xml, topology_p);
    if (words->synthetic)
        return dj_topology_parse(words->synthetic, topology_p);
    return dj_topology_find(true, topology_p);
}

static dj_status_t draw(const words_t *words, const dj_topology_t *topology,
                        const dj_layout_t *layout)
{
    FILE *out = fopen(words->svg, "w");
    if (!out)
        return dj_fail(DJ_ERR_FILE, "cannot write %.200s: %s", words->svg, strerror(errno));
    dj_status_t status = dj_topo_svg(topology, layout, out);
    if (fclose(out) != 0 && status == DJ_OK)
        status = dj_fail(DJ_ERR_FILE, "cannot write it: %s", strerror(errno));
    return status == DJ_OK ? status : dj_fail_prefix(status, "%.200s", words->svg);
}

static dj_status_t answer(const words_t *words, const dj_topology_t *topology,
                          const dj_layout_t *layout)
{
    if (words->svg)
        return draw(words, topology, layout);
    if (words->json)
        return dj_topo_json(topology, layout, stdout);
    dj_topo_print(topology, layout, stdout);
    return DJ_OK;
}

int dj_topo_main(int argc, char **argv)
{
    words_t words = {0};
    dj_layout_request_t request = {0};
    dj_topology_t *topology = NULL;
    dj_layout_t *layout = NULL;
    if (argc == 3 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0)) {
        fputs(usage, stdout);
        return 0;
    }
    dj_status_t status = parse(argc, argv, &words);
    if (status != DJ_OK) {
        fprintf(stderr, "djinn: %s; djinn topo --help shows what there is\n", dj_error_text());
        return 2;
    }
    status = open_topology(&words, &topology);
    if (status == DJ_OK)
        status = choose(&words, topology, &request);
    if (status == DJ_OK)
        status = dj_layout_compute(topology, &request, &layout);
    if (status == DJ_OK)
        status = answer(&words, topology, layout);
    if (status != DJ_OK)
        fprintf(stderr, "djinn: %s\n", dj_error_text());
    free(layout);
    free(topology);
    return status == DJ_OK ? 0 : 2;
}
