/* plugin.h - code of a site's own in the planner: detectors and rewrites from shared objects.
 *
 * A plugin is a shared object that exports one function:
 *
 *     const dj_plugin_t *djinn_plugin(const dj_plugin_host_t *host);
 *
 * It returns a description that lives as long as the process, or NULL when it does not want to
 * serve here. What it calls of Djinn it finds in `host`, which lives as long; it links nothing of
 * Djinn. It is compiled against this header (examples/plugin has one, with its build).
 *
 * Detectors are rows as those of detect.c: they vote for one of the phases, and count as much as
 * their weight. Rewrites are passes as those of rewrite.h: they run after Djinn's own, and each is
 * followed by a check of the whole graph, so a pass that breaks one ends that request with an error
 * and nothing else. They run in the rank's address space all the same: load what you trust.
 *
 * Which: DJINN_PLUGINS names files, absolute, separated by colons; they are loaded once, in that
 * order, when a rank or a command starts. A file must be regular, belong to this user or to root,
 * and be writable by nobody else. Whatever is wrong with one stops the start with a sentence.
 *
 * Versions: `abi` and `layout` must be what this build has; a plugin that only detects may have
 * been compiled against an older, shorter dj_features_t. Names, versions and contents of all loaded
 * plugins are part of the device class (dj_plugins_hash()): ranks with other plugins exchange no
 * plans.
 *
 * Threads: dj_plugins_load() before any other thread asks; everything else is then immutable. A
 * plugin's functions are called from several threads at once. */
#ifndef DJ_PLANNER_PLUGIN_H
#define DJ_PLANNER_PLUGIN_H

#include "planner/detect.h"
#include "planner/rewrite.h"

#define DJ_PLUGIN_ABI 1u

enum {
    DJ_PLUGINS_MAX = 16,
    DJ_PLUGIN_DETECTORS_MAX = 256,
    DJ_PLUGIN_REWRITES_MAX = 16,
    DJ_PLUGIN_TEXT_MAX = 63, /* bytes of a name or version, printable ASCII */
};

/* Sizes that a rewrite relies on, and the rows of the op table. */
#define DJ_PLUGIN_LAYOUT                                                                           \
    ((((((uint64_t)sizeof(dj_graph_t) * 257 + sizeof(dj_storage_t)) * 257 + sizeof(dj_node_t)) *   \
           257 +                                                                                   \
       sizeof(dj_output_t)) *                                                                      \
          257 +                                                                                    \
      sizeof(dj_operand_t)) *                                                                      \
         257 +                                                                                     \
     DJ_OP_COUNT)

/* What a plugin may call; fields are appended, never moved. See the functions of the same names. */
typedef struct dj_plugin_host {
    uint32_t abi, struct_bytes;
    uint64_t layout;
    uint16_t (*op_find)(const char *name);
    const dj_op_info_t *(*op_info)(uint16_t op);
    dj_status_t (*fail)(dj_status_t status, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
    bool (*view_equal)(const dj_view_t *a, const dj_view_t *b);
    dj_graph_t *(*graph)(dj_rewriter_t *rewriter);
    uint32_t (*root)(dj_rewriter_t *rewriter, uint32_t storage);
    dj_storage_use_t *(*uses)(dj_rewriter_t *rewriter);
    void (*rename)(dj_rewriter_t *rewriter, uint32_t from, uint32_t to, uint64_t bytes);
    void (*drop)(dj_rewriter_t *rewriter, uint32_t node);
    bool (*dropped)(const dj_rewriter_t *rewriter, uint32_t node);
    bool (*move)(dj_rewriter_t *rewriter, uint32_t node, uint32_t behind);
    dj_status_t (*commit)(dj_rewriter_t *rewriter);
    void *(*alloc)(dj_rewriter_t *rewriter, size_t count, size_t size);
} dj_plugin_host_t;

typedef struct dj_plugin {
    uint32_t abi;            /* DJ_PLUGIN_ABI */
    uint32_t features_bytes; /* sizeof(dj_features_t) */
    uint64_t layout;         /* DJ_PLUGIN_LAYOUT; 0 where there is no rewrite */
    const char *name, *version;
    uint32_t n_detectors, n_rewrites;
    const dj_detector_t *detectors;
    const dj_rewrite_fn_t *rewrites;
} dj_plugin_t;

typedef const dj_plugin_t *(*dj_plugin_entry_t)(const dj_plugin_host_t *host);
#define DJ_PLUGIN_ENTRY "djinn_plugin"

/* ---- Djinn's side ---- */

/* Loads the files of a colon-separated list ("": none); once a process. After an error none is
 * active. DJ_ERR_FILE, DJ_ERR_VERSION, DJ_ERR_INVALID (a description with nonsense in it),
 * DJ_ERR_LIMIT, DJ_ERR_BUSY (called twice). The sentence names the file. */
dj_status_t dj_plugins_load(const char *paths);

/* Checks a description as dj_plugins_load() does. */
dj_status_t dj_plugin_check(const dj_plugin_t *plugin);

uint32_t dj_plugins_count(void);
const dj_plugin_t *dj_plugins_at(uint32_t index);
/* All rewrites of all plugins, in order. */
const dj_rewrite_fn_t *dj_plugins_rewrites(uint32_t *count_p);
/* Over names, versions and contents of the files, in order; all zero when there are none. */
dj_hash_t dj_plugins_hash(void);

#endif
