/* detect.h - which phase of which workload a graph is: features, detectors, a verdict.
 *
 * Features are counted in one pass over the nodes, detectors are rows of a table (detect.c): a
 * name, a phase, a weight and a pure function that says how much of its pattern the features show,
 * 0 to 1. The scores of a phase are summed; "unknown" starts with 1, so a verdict needs evidence.
 * Nothing here knows a model by name: a detector asks what every architecture of its kind must do
 * (attend causally, embed a timestep, look at sound), never how one of them is written.
 *
 * A recording may be several programs (a module's return cuts it). Features add up, so the phase of
 * a snapshot is the verdict over the sum of its programs' features: dj_features_add().
 *
 * A user's hint is the verdict, with confidence 1.
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_DETECT_H
#define DJ_PLANNER_DETECT_H

#include "planner/graph.h"

/* X(NAME, value, text); values are written to files. */
#define DJ_PHASE_LIST(X)                                                                           \
    X(UNKNOWN, 0, "unknown")                                                                       \
    X(PREFILL, 1, "prefill")                                                                       \
    X(DECODE, 2, "decode")                                                                         \
    X(VISION, 3, "vision")                                                                         \
    X(DIFFUSION, 4, "diffusion")                                                                   \
    X(SPEECH, 5, "speech")                                                                         \
    X(RECOMMENDATION, 6, "recommendation")                                                         \
    X(TRAINING, 7, "training")

typedef enum dj_phase {
#define X(name, value, text) DJ_PHASE_##name = (value),
    DJ_PHASE_LIST(X)
#undef X
        DJ_PHASE_COUNT,
} dj_phase_t;

const char *dj_phase_name(uint8_t phase); /* "?" for a value not in the list */
/* DJ_ERR_INVALID with the list of names. */
dj_status_t dj_phase_parse(const char *text, uint8_t *phase_p);

/* What a value was made from, as far back as the inputs of its program. */
typedef enum dj_origin {
    DJ_ORIGIN_FLOAT = 1 << 0, /* floating-point numbers of the request or the session */
    DJ_ORIGIN_IDS = 1 << 1,   /* integers of the request or the session */
    DJ_ORIGIN_RANGE = 1 << 2, /* counting: arange, cumsum */
    DJ_ORIGIN_TOKEN = 1 << 3, /* rows of a table picked by a sequence of ids */
    DJ_ORIGIN_FIELD = 1 << 4, /* rows of a table picked by one id each */
    DJ_ORIGIN_IMAGE = 1 << 5, /* a 2-D or 3-D convolution, or patches */
    DJ_ORIGIN_SOUND =
        1 << 6, /* a 1-D convolution over samples or frames, or one over a spectrogram */
    DJ_ORIGIN_TIME = 1 << 7,   /* a product with sines and cosines: a timestep embedding */
    DJ_ORIGIN_CAUSAL = 1 << 8, /* a triangle, or a comparison of places */
} dj_origin_t;

/* Counts over one program, or the sum over several. Part of the plugins' contract (plugin.h):
 * fields are appended, never moved. */
typedef struct dj_features {
    uint32_t n_nodes;
    uint32_t n_products, n_norms, n_pools, n_scans, n_sorts;
    uint32_t n_conv_1d, n_conv_2d, n_conv_3d; /* by the filter's rank */
    uint32_t n_conv_1d_wide;                  /* of these: dense, and wider than one place */
    uint32_t n_conv_turned;                   /* transposed convolutions and resampling */

    /* sequences */
    uint32_t n_attention;     /* fused, or product, softmax, product */
    uint32_t n_attention_one; /* of these: one query against several keys */
    uint32_t n_causal;        /* of these: several queries, causal by flag or mask */
    uint32_t n_cached;        /* of these: keys or values grown from, or written into, state */
    uint32_t n_token_gathers; /* table lookups by a sequence of ids */
    uint32_t n_field_gathers; /* table lookups by one id a row */
    uint32_t n_bags;          /* lookups that sum a bag of rows */
    uint32_t n_tables;        /* different tables looked up */
    uint32_t n_reused_tables; /* look-ups in a table that other ids were looked up in before */
    uint32_t n_offset_fields; /* look-ups by ids to which a row of offsets was added */
    uint32_t n_vocabulary;    /* products onto as many columns as a table of tokens has rows */
    int64_t tokens_per_row;   /* the longest sequence of ids */

    /* pictures, sound, time */
    uint32_t n_image_stems, n_sound_stems, n_spectrogram_stems, n_patches;
    uint32_t n_time_embeddings;   /* sines and cosines into a product */
    uint32_t n_like_input;        /* results as large as a floating-point input of rank 3 or more */
    uint32_t n_fields_joined;     /* looked-up rows put side by side */
    uint32_t n_sequence_products; /* products over [batch, length, width] */
    uint32_t n_scalar_outputs;    /* results with one number a row, or one in all */
    uint32_t n_state_writes;      /* windows of float state written */
    uint32_t n_thin_stems; /* sound stems with a filter a channel: also found in recurrences */
    uint32_t n_messages;   /* rows of a computed matrix handed out by more ids than it has */
    uint32_t n_gates;      /* sigmoid and tanh */

    /* training */
    uint32_t n_backward;     /* ops that compute gradients */
    uint32_t n_weight_grads; /* products of two activations, shaped like a weight */
    uint32_t n_losses;
    uint32_t n_updates; /* whole float inputs of rank 1 or more overwritten pointwise */

    double flops;
    double token_flops, image_flops, sound_flops; /* of nodes that only that kind reached */
} dj_features_t;

/* Adds up one program's features. `origins`, where not NULL, receives dj_origin_t bits of each
 * node. Linear in the graph. DJ_ERR_MEMORY. */
dj_status_t dj_features_of(const dj_graph_t *graph, dj_features_t *features, uint16_t *origins);
void dj_features_add(dj_features_t *into, const dj_features_t *from);

typedef struct dj_detector {
    const char *name; /* a sentence's subject: "causal attention over a prompt" */
    uint8_t phase;    /* dj_phase_t */
    float weight;     /* 1 outweighs having no idea */
    double (*match)(const dj_features_t *features); /* 0: nothing of it, 1: all of it */
} dj_detector_t;

/* The built-in rows. */
const dj_detector_t *dj_detectors(uint32_t *count_p);

typedef struct dj_verdict {
    uint8_t phase;
    bool hinted;
    double confidence;  /* the phase's share of all scores */
    const char *reason; /* name of the detector that weighed most; static or the plugin's */
    double scores[DJ_PHASE_COUNT];
} dj_verdict_t;

/* `hint`: a user's phase, DJ_PHASE_UNKNOWN for none. Asks the built-in detectors, then those of the
 * loaded plugins (plugin.h). */
void dj_detect(const dj_features_t *features, uint8_t hint, dj_verdict_t *verdict);

#endif
