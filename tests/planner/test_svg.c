/* Pictures of random plans: well-formed whatever tensors are called, one rectangle a tensor. */
#include "planner/svg.h"
#include "tests/planner/random_program.h"

/* Opens and closes in order, and no '<' or '&' that is none of a tag's or an entity's. */
static void check_well_formed(const char *text)
{
    char stack[64][24];
    uint32_t depth = 0;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '&') {
            assert_true(strncmp(at, "&amp;", 5) == 0 || strncmp(at, "&lt;", 4) == 0 ||
                        strncmp(at, "&gt;", 4) == 0 || strncmp(at, "&#10;", 5) == 0);
            continue;
        }
        if (*at != '<')
            continue;
        bool closes = at[1] == '/';
        const char *name = at + 1 + closes, *end = strchr(at, '>');
        size_t length = strcspn(name, " />");
        assert_non_null(end);
        assert_true(length > 0 && length < sizeof stack[0]);
        if (closes) {
            assert_true(depth > 0);
            assert_memory_equal(stack[depth - 1], name, length + 1);
            depth--;
        } else if (end[-1] != '/') {
            assert_true(depth < 64);
            memcpy(stack[depth], name, length);
            stack[depth++][length] = '>';
        }
        at = end;
    }
    assert_int_equal(depth, 0);
}

static uint32_t count_of(const char *text, const char *what)
{
    uint32_t count = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
        count++;
    return count;
}

static void draws_random_plans(void **state)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        dj_program_t program = {0};
        dj_graph_t *graph;
        dj_srg_t *srg;
        dj_plan_t *plan;
        dj_plan_needs_t needs = {0};
        dj_bytes_t text = {0};
        dj_snapshot_name_t names[POOL_MAX];
        dj_snapshot_program_t recorded = {.names = names};
        uint32_t n_boxes = 0;
        random_program(&program, seed, 1 + (uint32_t)seed % 60);
        assert_ok(decode(&program, &graph));
        for (uint32_t i = 0; i < graph->n_storages && i < POOL_MAX; i++)
            names[recorded.n_names++] =
                (dj_snapshot_name_t){i, i % 2 ? "</title><script>&'\"" : "\xff\xfe w\x01 ]]>"};
        assert_ok(dj_srg_make(graph, NULL, DJ_PHASE_UNKNOWN, &srg));
        assert_ok(dj_plan_make(graph, &needs, &plan));
        assert_ok(dj_plan_draw(srg, plan, "<a & b>", seed % 3 ? &recorded : NULL, &text));
        dj_bytes_put_u8(&text, 0);
        const char *picture = (const char *)text.data;
        check_well_formed(picture);
        for (uint32_t i = 0; i < plan->n_storages; i++)
            n_boxes += plan->offsets[i] != DJ_OFFSET_NONE;
        for (uint32_t i = 0; i < plan->n_steps; i++)
            n_boxes += plan->steps[i].staging != DJ_OFFSET_NONE;
        assert_int_equal(count_of(picture, "<title>"), n_boxes);
        assert_null(strstr(picture, "<script>"));
        dj_bytes_fini(&text);
        dj_plan_destroy(plan);
        dj_srg_destroy(srg);
        dj_graph_destroy(graph);
        dj_program_fini(&program);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_random_plans),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
