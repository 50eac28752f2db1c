/* Phases of real recordings (tests/graphs), against labels that no file holds.
 *
 * `known` architectures were there while the detectors were written; `new` ones came after, and say
 * what the detectors are worth. Both accuracies are printed, with every recording that was taken
 * for something else. What is asserted is what holds: a fall below it is a regression. */
#include <stdio.h>

#include "planner/detect.h"
#include "planner/snapshot.h"
#include "tests/planner/builder.h"

/* Detectors on made-up features: what each must and must not say. */
static uint8_t phase_of(const dj_features_t *features)
{
    dj_verdict_t verdict;
    dj_detect(features, DJ_PHASE_UNKNOWN, &verdict);
    assert_true(verdict.confidence > 0 && verdict.confidence <= 1);
    assert_non_null(verdict.reason);
    return verdict.phase;
}

static void knows_nothing_of_nothing(void **state)
{
    dj_features_t features = {0};
    assert_int_equal(phase_of(&features), DJ_PHASE_UNKNOWN);
    features = (dj_features_t){.n_nodes = 9, .n_products = 3, .flops = 1e9};
    assert_int_equal(phase_of(&features), DJ_PHASE_UNKNOWN); /* an MLP may be anything */
}

static void adds_programs_up(void **state)
{
    dj_features_t lookup = {
        .n_nodes = 3, .n_token_gathers = 1, .n_tables = 1, .tokens_per_row = 32};
    dj_features_t rest = {.n_nodes = 70, .n_attention = 6, .n_products = 36};
    dj_features_t both = {0};
    assert_int_equal(phase_of(&rest), DJ_PHASE_UNKNOWN);
    dj_features_add(&both, &lookup);
    dj_features_add(&both, &rest);
    assert_int_equal(both.n_nodes, 73);
    assert_int_equal(both.tokens_per_row, 32);
    assert_int_equal(phase_of(&both), DJ_PHASE_PREFILL);
}

static void gradients_win(void **state)
{
    dj_features_t features = {.n_nodes = 400,
                              .n_attention = 6,
                              .n_causal = 6,
                              .n_vocabulary = 1,
                              .tokens_per_row = 128,
                              .n_weight_grads = 20,
                              .n_updates = 60};
    assert_int_equal(phase_of(&features), DJ_PHASE_TRAINING);
}

static void every_row_is_whole(void **state)
{
    uint32_t count;
    const dj_detector_t *rows = dj_detectors(&count);
    dj_features_t nothing = {0};
    bool seen[DJ_PHASE_COUNT] = {0};
    for (uint32_t i = 0; i < count; i++) {
        assert_true(rows[i].name[0] != '\0' && rows[i].weight > 0);
        assert_true(rows[i].phase > DJ_PHASE_UNKNOWN && rows[i].phase < DJ_PHASE_COUNT);
        assert_true(rows[i].match(&nothing) == 0);
        seen[rows[i].phase] = true;
    }
    for (uint8_t phase = 1; phase < DJ_PHASE_COUNT; phase++)
        assert_true(seen[phase]);
}

typedef struct score {
    const char *set;
    uint32_t right, total;
} score_t;

static void judge(const char *file, const char *architecture, uint8_t label, score_t *score)
{
    char path[512];
    dj_snapshot_t *snapshot;
    dj_features_t features = {0};
    dj_verdict_t verdict;
    snprintf(path, sizeof path, "%s/%s", DJINN_GRAPHS, file);
    assert_ok(dj_snapshot_read(path, &snapshot));
    for (uint32_t i = 0; i < snapshot->n_programs; i++) {
        dj_graph_t *graph;
        assert_ok(dj_snapshot_graph(snapshot, i, &graph));
        assert_ok(dj_features_of(graph, &features, NULL));
        dj_graph_destroy(graph);
    }
    dj_detect(&features, DJ_PHASE_UNKNOWN, &verdict);
    score->total++;
    score->right += verdict.phase == label;
    if (verdict.phase != label)
        print_message("  %s (%s) is %s, taken for %s at %.0f%%: %s\n", file, architecture,
                      dj_phase_name(label), dj_phase_name(verdict.phase), verdict.confidence * 100,
                      verdict.reason);
    dj_snapshot_destroy(snapshot);
}

static void recognises_real_graphs(void **state)
{
    score_t scores[] = {{.set = "known"}, {.set = "new"}};
    char line[512];
    FILE *labels = fopen(DJINN_GRAPHS "/labels.csv", "r");
    assert_non_null(labels);
    assert_non_null(fgets(line, sizeof line, labels)); /* the header */
    while (fgets(line, sizeof line, labels) != NULL) {
        char *file = strtok(line, ","), *architecture = strtok(NULL, ",");
        char *phase = strtok(NULL, ","), *set = strtok(NULL, ",\r\n");
        uint8_t label;
        assert_non_null(set);
        assert_ok(dj_phase_parse(phase, &label));
        judge(file, architecture, label, &scores[strcmp(set, "new") == 0]);
    }
    fclose(labels);
    for (uint32_t i = 0; i < 2; i++)
        if (scores[i].total > 0)
            print_message("%s: %u of %u phases right, %.1f%%\n", scores[i].set, scores[i].right,
                          scores[i].total, 100.0 * scores[i].right / scores[i].total);
    assert_true(scores[0].right >= 0.95 * scores[0].total);
    assert_true(scores[1].total > 0 && scores[1].right >= 0.95 * scores[1].total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_nothing_of_nothing), cmocka_unit_test(every_row_is_whole),
        cmocka_unit_test(adds_programs_up),         cmocka_unit_test(gradients_win),
        cmocka_unit_test(recognises_real_graphs),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
