/* topo.h - djinn topo: a machine and what a server would do on it, as text, JSON or a picture. */
#ifndef DJ_LAUNCHER_TOPO_H
#define DJ_LAUNCHER_TOPO_H

#include <stdio.h>

#include "launcher/placement/placement.h"

/* argv[1] is "topo". Exit status: 2 for wrong use and files that cannot be read or written. */
int dj_topo_main(int argc, char **argv);

void dj_topo_print(const dj_topology_t *topology, const dj_layout_t *layout, FILE *out);
/* DJ_ERR_MEMORY. */
dj_status_t dj_topo_json(const dj_topology_t *topology, const dj_layout_t *layout, FILE *out);
/* DJ_ERR_FILE. */
dj_status_t dj_topo_svg(const dj_topology_t *topology, const dj_layout_t *layout, FILE *out);

/* "AMD EPYC 7742, 2 packages, 8 NUMA nodes, 128 cores, 8 GPUs, 8 NICs" */
void dj_topo_title(const dj_topology_t *topology, char *text, size_t room);
/* The same bandwidth joins every two GPUs: MB/s; else 0. */
uint32_t dj_topo_even_links(const dj_topology_t *topology);
/* "what this layout costs": exact or not, and the sum. */
void dj_topo_verdict(const dj_layout_t *layout, char *text, size_t room);

#endif
