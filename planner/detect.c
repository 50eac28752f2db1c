/* detect.c - the rows that know phases, and the sum that decides.
 *
 * Weights: 1 is what "unknown" starts with; 2 decides alone; 4 decides against one other row. */
#include "planner/detect.h"

#include "planner/plugin.h"

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static bool sees(const dj_features_t *f)
{
    return f->n_image_stems + f->n_patches > 0;
}

static bool hears(const dj_features_t *f)
{
    return f->n_sound_stems + f->n_spectrogram_stems > 0 ||
           (f->n_thin_stems > 0 && f->n_token_gathers == 0);
}

static bool denoises(const dj_features_t *f)
{
    return f->n_like_input > 0 && f->n_vocabulary == 0;
}

/* Unrolled in time: gates by the dozen. */
static bool recurs(const dj_features_t *f)
{
    return f->n_gates > 16 + 2 * f->n_tables;
}

/* ---- language ---- */

static double causal_prompt(const dj_features_t *f)
{
    return f->n_causal > 0 && f->tokens_per_row > 1 && f->n_vocabulary > 0;
}

static double causal_sequence(const dj_features_t *f)
{
    bool read = f->n_causal > 0 && f->tokens_per_row > 1 && !hears(f);
    return read ? 1 - share(f->image_flops, f->flops) : 0;
}

/* Beside a picture or sound, as far as the words have the work. */
static double attended_tokens(const dj_features_t *f)
{
    if (f->tokens_per_row <= 1 || f->n_attention <= f->n_attention_one)
        return 0;
    if (!sees(f) && !hears(f))
        return 1;
    return share(f->token_flops, f->token_flops + f->image_flops + f->sound_flops);
}

static double prompt_vocabulary(const dj_features_t *f)
{
    return f->tokens_per_row > 1 && f->n_vocabulary > 0;
}

static double token_sequence(const dj_features_t *f)
{
    return f->tokens_per_row >= 8 && (f->n_sequence_products >= 4 || recurs(f)) && !sees(f) &&
           !hears(f);
}

/* Where heads share keys, one query may stand there as several rows: the ids say how many there
 * are. */
static double growing_cache(const dj_features_t *f)
{
    return f->n_cached > 0 &&
           (f->tokens_per_row == 1 || (f->tokens_per_row == 0 && f->n_attention_one > 0));
}

static double one_query(const dj_features_t *f)
{
    return f->tokens_per_row == 1 ? share(f->n_attention_one, f->n_attention) : 0;
}

static double one_token_vocabulary(const dj_features_t *f)
{
    return f->tokens_per_row == 1 && f->n_vocabulary > 0;
}

static double one_token(const dj_features_t *f)
{
    return f->tokens_per_row == 1 && f->n_tables <= 2 && !sees(f) && !hears(f);
}

static double one_token_state(const dj_features_t *f)
{
    return f->tokens_per_row == 1 && f->n_state_writes > 0;
}

/* ---- pictures ---- */

static double image_stem(const dj_features_t *f)
{
    return f->n_image_stems > 0 ? 0.5 + 0.5 * share(f->image_flops, f->flops) : 0;
}

static double image_patches(const dj_features_t *f)
{
    return f->n_patches > 0;
}

static double mostly_image(const dj_features_t *f)
{
    return share(f->image_flops, f->flops) > 0.5;
}

static double image_alone(const dj_features_t *f)
{
    return sees(f) && f->n_token_gathers + f->n_time_embeddings == 0;
}

/* ---- denoisers ---- */

static double timestep(const dj_features_t *f)
{
    uint32_t convolutions = f->n_conv_1d + f->n_conv_2d + f->n_conv_3d;
    return f->n_time_embeddings > 0 && denoises(f) && f->n_attention + convolutions > 0 &&
           f->n_products + convolutions > 2;
}

static double waves(const dj_features_t *f)
{
    return f->n_time_embeddings > 0 && f->n_attention + f->n_conv_2d + f->n_conv_3d > 0 &&
           f->n_token_gathers == 0 && f->n_vocabulary == 0;
}

static double timestep_table(const dj_features_t *f)
{
    return f->n_time_embeddings == 0 && f->n_field_gathers > 0 && sees(f) && denoises(f);
}

/* ---- sound ---- */

static double sound_stem(const dj_features_t *f)
{
    bool heard = f->n_sound_stems > 0 || (f->n_thin_stems > 0 && f->n_token_gathers == 0);
    return heard ? 0.4 + 0.6 * share(f->sound_flops, f->flops) : 0;
}

static double spectrogram(const dj_features_t *f)
{
    return f->n_spectrogram_stems > 0;
}

static double spoken_tokens(const dj_features_t *f)
{
    return !hears(f) && f->tokens_per_row > 1 && f->n_conv_1d_wide > 3 && f->n_vocabulary == 0 &&
           f->n_conv_2d == 0;
}

/* ---- tables ---- */

static double many_tables(const dj_features_t *f)
{
    return f->n_tables >= 3 && f->n_attention == 0 && f->n_vocabulary == 0 && !sees(f) &&
           !recurs(f);
}

/* With attention among the fields or over a history. */
static double many_fields(const dj_features_t *f)
{
    return f->n_attention > 0 && !sees(f) && f->n_vocabulary == 0 &&
           (f->n_field_gathers >= 3 || f->n_tables >= 4 || f->n_offset_fields > 0);
}

/* Candidates are looked up where the history was. */
static double candidates(const dj_features_t *f)
{
    bool one_stack = f->n_causal == 0 || f->n_causal == f->n_attention; /* no encoder and decoder */
    return f->n_reused_tables > 0 && one_stack && f->n_vocabulary == 0 && !sees(f) && !recurs(f);
}

static double joined_fields(const dj_features_t *f)
{
    return f->n_fields_joined > 0 && f->n_products > 0 && f->n_vocabulary == 0 && !sees(f);
}

static double lookups_alone(const dj_features_t *f)
{
    return f->n_field_gathers + f->n_token_gathers + f->n_bags > 0 && f->n_attention == 0 &&
           f->n_vocabulary == 0 && f->n_conv_1d + f->n_conv_2d + f->n_scans == 0 && !hears(f) &&
           f->n_messages == 0 && !recurs(f);
}

/* ---- training ---- */

static double gradients(const dj_features_t *f)
{
    return f->n_backward > 0;
}

static double weight_gradients(const dj_features_t *f)
{
    return f->n_weight_grads >= 2 ? 1 : f->n_weight_grads * 0.4;
}

static double updates(const dj_features_t *f)
{
    return f->n_updates >= 2 && f->n_weight_grads + f->n_backward + f->n_losses > 0 ? 1 : 0;
}

/* An optimizer alone: hardly anything but overwriting. */
static double optimizer(const dj_features_t *f)
{
    return f->n_updates >= 4 && share(f->n_updates, f->n_nodes) > 0.1;
}

static const dj_detector_t detectors[] = {
    {"causal attention over a prompt, projected onto the vocabulary", DJ_PHASE_PREFILL, 2,
     causal_prompt},
    {"causal attention over a sequence", DJ_PHASE_PREFILL, 1.5f, causal_sequence},
    {"attention over a sequence of tokens", DJ_PHASE_PREFILL, 2.5f, attended_tokens},
    {"a sequence of tokens projected onto the vocabulary", DJ_PHASE_PREFILL, 2, prompt_vocabulary},
    {"products over a sequence of tokens", DJ_PHASE_PREFILL, 1.2f, token_sequence},
    {"one query against a cache that grows", DJ_PHASE_DECODE, 4, growing_cache},
    {"one query against many keys", DJ_PHASE_DECODE, 2, one_query},
    {"one token projected onto the vocabulary", DJ_PHASE_DECODE, 2, one_token_vocabulary},
    {"one token and state that is written", DJ_PHASE_DECODE, 2, one_token_state},
    {"one token at a time", DJ_PHASE_DECODE, 1.2f, one_token},
    {"convolutions over a picture", DJ_PHASE_VISION, 2, image_stem},
    {"most of the work on a picture", DJ_PHASE_VISION, 3, mostly_image},
    {"a picture cut into patches", DJ_PHASE_VISION, 2, image_patches},
    {"a picture and nothing else", DJ_PHASE_VISION, 1.5f, image_alone},
    {"a timestep embedded in waves, a result like the input", DJ_PHASE_DIFFUSION, 12, timestep},
    {"a timestep embedded in waves", DJ_PHASE_DIFFUSION, 2, waves},
    {"a timestep looked up, a result like the input", DJ_PHASE_DIFFUSION, 8, timestep_table},
    {"convolutions over samples or frames of sound", DJ_PHASE_SPEECH, 9, sound_stem},
    {"convolutions over a spectrogram", DJ_PHASE_SPEECH, 5, spectrogram},
    {"a sequence of tokens spoken", DJ_PHASE_SPEECH, 6, spoken_tokens},
    {"ids in many tables", DJ_PHASE_RECOMMENDATION, 3, many_tables},
    {"attention among looked-up fields", DJ_PHASE_RECOMMENDATION, 4, many_fields},
    {"candidates looked up like the history", DJ_PHASE_RECOMMENDATION, 6, candidates},
    {"looked-up fields side by side", DJ_PHASE_RECOMMENDATION, 2, joined_fields},
    {"look-ups without attention or a vocabulary", DJ_PHASE_RECOMMENDATION, 2, lookups_alone},
    {"gradients", DJ_PHASE_TRAINING, 16, gradients},
    {"products shaped like weights", DJ_PHASE_TRAINING, 12, weight_gradients},
    {"inputs overwritten whole after gradients", DJ_PHASE_TRAINING, 4, updates},
    {"little but inputs overwritten whole", DJ_PHASE_TRAINING, 3, optimizer},
};

const dj_detector_t *dj_detectors(uint32_t *count_p)
{
    *count_p = sizeof detectors / sizeof detectors[0];
    return detectors;
}

const char *dj_phase_name(uint8_t phase)
{
    switch (phase) {
#define X(name, value, text)                                                                       \
    case value:                                                                                    \
        return text;
        DJ_PHASE_LIST(X)
#undef X
    }
    return "?";
}

dj_status_t dj_phase_parse(const char *text, uint8_t *phase_p)
{
    for (uint8_t phase = 0; phase < DJ_PHASE_COUNT; phase++)
        if (strcmp(text, dj_phase_name(phase)) == 0) {
            *phase_p = phase;
            return DJ_OK;
        }
    return dj_fail(DJ_ERR_INVALID,
                   "no phase '%.32s'; there are unknown, prefill, decode, vision, "
                   "diffusion, speech, recommendation and training",
                   text);
}

/* The strongest row of the best phase is the reason that is told. */
typedef struct dj_ballot {
    double scores[DJ_PHASE_COUNT], strongest[DJ_PHASE_COUNT];
    const char *reasons[DJ_PHASE_COUNT];
} dj_ballot_t;

static void vote(dj_ballot_t *ballot, const dj_detector_t *rows, uint32_t count,
                 const dj_features_t *features)
{
    for (uint32_t i = 0; i < count; i++) {
        const dj_detector_t *row = &rows[i];
        double score = row->match(features) * row->weight;
        if (!(score > 0) || row->phase >= DJ_PHASE_COUNT)
            continue;
        ballot->scores[row->phase] += score;
        if (score > ballot->strongest[row->phase]) {
            ballot->strongest[row->phase] = score;
            ballot->reasons[row->phase] = row->name;
        }
    }
}

void dj_detect(const dj_features_t *features, uint8_t hint, dj_verdict_t *verdict)
{
    dj_ballot_t ballot = {.scores = {[DJ_PHASE_UNKNOWN] = 1},
                          .reasons = {[DJ_PHASE_UNKNOWN] = "no detector is sure"}};
    uint32_t count;
    const dj_detector_t *rows = dj_detectors(&count);
    vote(&ballot, rows, count, features);
    for (uint32_t i = 0; i < dj_plugins_count(); i++)
        vote(&ballot, dj_plugins_at(i)->detectors, dj_plugins_at(i)->n_detectors, features);
    double total = 0;
    uint8_t best = DJ_PHASE_UNKNOWN;
    for (uint8_t phase = 0; phase < DJ_PHASE_COUNT; phase++) {
        total += ballot.scores[phase];
        best = ballot.scores[phase] > ballot.scores[best] ? phase : best;
    }
    *verdict = (dj_verdict_t){
        .phase = best, .confidence = ballot.scores[best] / total, .reason = ballot.reasons[best]};
    memcpy(verdict->scores, ballot.scores, sizeof verdict->scores);
    if (hint == DJ_PHASE_UNKNOWN || hint >= DJ_PHASE_COUNT)
        return;
    verdict->phase = hint;
    verdict->hinted = true;
    verdict->confidence = 1;
    verdict->reason = "the user says so";
}
