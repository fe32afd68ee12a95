/* The passes in order: each reads what those before it have left, adds its own, and changes nothing else. */
#include "compile/passes.h"

#include "base/error.h"
#include "base/log.h"
#include "compile/group.h"
#include "compile/integer.h"
#include "compile/layout.h"
#include "compile/lower.h"
#include "compile/prepare.h"
#include "compile/schedule.h"

#include <stdlib.h>
#include <string.h>

struct compilation {
    const struct graph *given;
    const struct kernel_target *target;
    struct graph *graph; /* prepare */
    struct grouping grouping;
    struct layouts layouts;
    struct schedule schedule;
    struct launch_list list;
};

static int prepare(struct compilation *c) {
    int status = prepare_graph(c->given, &c->graph);
    for (int i = 0; status >= 0 && i < graph_count(c->graph); i++) {
        const struct node *node = graph_node(c->graph, i);
        c->list.flops += op_info(node->op)->cost(node);
    }
    return status;
}

static int group(struct compilation *c) {
    return grouping_create(c->graph, c->target, &c->grouping);
}

static int lay_out(struct compilation *c) {
    return layouts_create(&c->grouping, &c->list, &c->layouts);
}

static int plan_work(struct compilation *c) {
    return schedule_create(&c->layouts, &c->schedule);
}

static int lower(struct compilation *c) {
    return lower_steps(&c->schedule, &c->list);
}

static int merge(struct compilation *c) {
    return merge_launches(&c->list, c->target);
}

static int place(struct compilation *c) {
    return memory_plan(&c->list);
}

/* Kernels index with int. The room above is for what is rounded up past the last element: counts of work-items, and the
 * ends of their shares (emit_flat.c: 256 shares of a multiple of 16; emit_rows.c: 1024 shares). */
#define MOST_ELEMENTS (INT32_MAX - (1 << 16))

static int check_size(const struct kernel_target *target, const struct node *node) {
    struct shape padded = node->shape;
    if (padded.rank == 4 && kernels_conv_layout(target, padded.size[1]) == LAYOUT_BLOCKED)
        padded.size[1] = round_up(padded.size[1], target->lanes);
    int64_t count = shape_count(padded);
    if (count >= 0 && count <= MOST_ELEMENTS) return RETORT_OK;
    char shape[128];
    shape_print(node->shape, shape, sizeof shape);
    return error_set(RETORT_ELIMIT,
                     "a tensor %s has more elements than the %d that kernels can count: use smaller batches", shape,
                     MOST_ELEMENTS);
}

static int check_graph(const struct compilation *c) {
    int status = RETORT_OK;
    TRY(graph_verify(c->graph));
    for (int i = 0; i < graph_count(c->graph); i++) TRY(check_size(c->target, graph_node(c->graph, i)));
done:
    return status;
}

static int check_groups(const struct compilation *c) {
    return grouping_check(&c->grouping);
}

static int check_layouts(const struct compilation *c) {
    return layouts_check(&c->layouts);
}

static int check_schedule(const struct compilation *c) {
    return schedule_check(&c->schedule);
}

static int check_launches(const struct compilation *c) {
    return launch_list_check(&c->list);
}

static int check_memory(const struct compilation *c) {
    return memory_check(&c->list);
}

static void print_graph(const struct compilation *c, FILE *stream) {
    graph_print(c->graph, stream);
}

static void print_groups(const struct compilation *c, FILE *stream) {
    grouping_print(&c->grouping, stream);
}

static void print_layouts(const struct compilation *c, FILE *stream) {
    layouts_print(&c->layouts, stream);
}

static void print_schedule(const struct compilation *c, FILE *stream) {
    schedule_print(&c->schedule, stream);
}

static void print_launches(const struct compilation *c, FILE *stream) {
    launch_list_print(&c->list, stream);
}

static const struct {
    const char *name;
    int (*run)(struct compilation *c);
    int (*check)(const struct compilation *c); /* cheap, so every compilation is checked */
    void (*print)(const struct compilation *c, FILE *stream);
} passes[] = {
    {"prepare", prepare, check_graph, print_graph},          /* into forms that the later passes like */
    {"group", group, check_groups, print_groups},            /* which nodes share a kernel */
    {"layout", lay_out, check_layouts, print_layouts},       /* where values lie and how, and the steps */
    {"schedule", plan_work, check_schedule, print_schedule}, /* kernels of fused steps, and how their work is divided */
    {"lower", lower, check_launches, print_launches},        /* texts of fused kernels, choice of hand-written ones */
    {"merge", merge, check_launches, print_launches},        /* small launches that do not wait for each other */
    {"place", place, check_memory, print_launches},          /* values in the arena */
};

/* Whether a name stands in the list that RETORT_PASSES holds. */
static bool is_wanted(const char *name) {
    const char *list = getenv("RETORT_PASSES");
    for (size_t length; list && *list; list += length + (list[length] == ',')) {
        length = strcspn(list, ",");
        if ((length == 3 && strncmp(list, "all", 3) == 0) || (length == strlen(name) && !strncmp(list, name, length)))
            return true;
    }
    return false;
}

int compile_graph(const struct graph *graph, const struct kernel_target *target, const char *label,
                  struct launch_list *list) {
    int status = RETORT_OK;
    struct compilation c = {.given = graph, .target = target};
    arena_init(&c.list.arena);
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
        TRY(passes[i].run(&c));
        if (is_wanted(passes[i].name)) {
            fprintf(stderr, "--- %s: %s\n", label, passes[i].name);
            passes[i].print(&c, stderr);
        }
        TRY(passes[i].check(&c));
    }
    for (size_t i = 0; i < c.list.values.count; i++) c.list.values.items[i]->node = NULL;
    log_debug("%s: %d nodes, %zu launches, %.1f MB scratch", label, graph_count(c.graph), c.list.launches.count,
              (double)c.list.arena_floats * 4e-6);
    *list = c.list;
    c.list = (struct launch_list){0};
done:
    schedule_finish(&c.schedule);
    layouts_finish(&c.layouts);
    grouping_finish(&c.grouping);
    graph_destroy(c.graph);
    launch_list_finish(&c.list);
    return status;
}
