/* Merged kernels of GPUs. Whole work-groups take one branch, for there are barriers inside; so the parts have groups of
 * the same size, but for kernels that ask for nothing but their global place. Only the outermost scope of a kernel may
 * declare local memory: the arrays of a function become members of a structure there, and the structures lie one in the
 * place of the other. */
#include "compile/merge.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const char attribute[] = "__attribute__((reqd_work_group_size(";

static size_t group_items(const struct launch *launch) {
    return launch->local[0] ? launch->local[0] * launch->local[1] * launch->local[2] : 1;
}

size_t fixed_group(const struct launch *launch) {
    static const char *const words[] = {"get_local", "get_group", "get_num_groups", "barrier", "shared_"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(launch->text, words[i])) return group_items(launch);
    return 0;
}

/* --- local memory --- */
/* The next declaration of local arrays in a kernel's body, "local float a[8], b[4];", and the length of it from `local`
 * to before the semicolon. Pointers to local memory are none. NULL: there is no more. */
static const char *next_locals(const char *body, size_t *length) {
    for (const char *at = body; (at = strstr(at, "local ")); at++) {
        const char *line = at;
        while (line > body && line[-1] == ' ') line--;
        if (line > body && line[-1] != '\n') continue; /* a cast, a parameter, the end of a word */
        const char *sign = strpbrk(at, "*=(;[");
        *length = strcspn(at, ";");
        if (sign && *sign == '[' && at[*length]) return at;
    }
    return NULL;
}

static bool is_condition(const char *line) {
    return !strncmp(line, "#if", 3) || !strncmp(line, "#el", 3) || !strncmp(line, "#endif", 6);
}

/* The structure of a body's local arrays, under the conditions under which they stand there. */
static void append_structure(struct text *text, const char *name, const char *body) {
    size_t length;
    text_printf(text, "struct shared_%s {\n", name);
    for (const char *line = body, *end; *line; line = end) {
        const char *at = next_locals(line, &length);
        end = line + strcspn(line, "\n");
        end += *end == '\n';
        if (is_condition(line))
            text_printf(text, "%.*s", (int)(end - line), line);
        else if (at && at < end) {
            text_printf(text, "    %.*s;\n", (int)(length - strlen("local ")), at + strlen("local "));
            if (at + length >= end) end = at + length + 1;
        }
    }
    text_append(text, "};\n");
}

/* Calls the members by the arrays' names, or takes the names back. A name is what stands before the first bracket. */
static void append_names(struct text *text, const char *body, bool define) {
    size_t length;
    for (const char *at = body; (at = next_locals(at, &length)); at += length)
        for (const char *c = at; c < at + length; c++) {
            if (*c != '[') continue;
            const char *word = c;
            while (word > at && (isalnum((unsigned char)word[-1]) || word[-1] == '_')) word--;
            int letters = (int)(c - word);
            if (define)
                text_printf(text, "#define %.*s group_memory->%.*s\n", letters, word, letters, word);
            else
                text_printf(text, "#undef %.*s\n", letters, word);
            for (int depth = 0; c < at + length && (depth || *c != ','); c++) depth += (*c == '(') - (*c == ')');
        }
}

/* --- functions --- */
bool can_merge_gpu(const struct launch *launch) {
    enum { MOST = 20000 };
    const char *begin = strstr(launch->text, KERNEL_BEGIN), *get = strstr(launch->text, "get_");
    /* One kernel, nothing before it that depends on the work-item, and no width of sub-groups, which a function cannot
     * ask for. */
    return begin && !strstr(begin + 1, KERNEL_BEGIN) && (!get || get > begin) && strlen(launch->text) <= MOST
           && !strstr(launch->text, "#define SUB_GROUP ") && group_items(launch) <= 1024;
}

static bool has_locals(const char *kernel) {
    size_t length;
    return next_locals(strstr(kernel, KERNEL_BEGIN), &length) != NULL;
}

/* What a function takes the place of its work-item from, in words that kernels do not use. */
static const char *const queries[][2] = {
    {"get_group_id", "group_place[d]"},
    {"get_num_groups", "group_extent[d]"},
    {"get_local_id", "item_place[d]"},
    {"get_local_size", "item_extent[d]"},
    {"get_global_id", "(group_place[d] * item_extent[d] + item_place[d])"},
    {"get_global_size", "(group_extent[d] * item_extent[d])"},
};
enum { QUERIES = sizeof queries / sizeof *queries };

/* A kernel's text as a function, once in a program. */
static void append_function(struct text *text, const char *name, const char *kernel) {
    const char *begin = strstr(kernel, KERNEL_BEGIN), *prefix = begin, *body = begin + strlen(KERNEL_BEGIN), *at;
    bool locals = has_locals(kernel);
    size_t length;
    for (at = kernel; (at = strstr(at, attribute)) && at < begin; at++) prefix = at;
    text_printf(text, "#ifndef DEFINED_%s\n#define DEFINED_%s\n#undef NAME\n#define NAME %s\n", name, name, name);
    text_printf(text, "%.*s", (int)(prefix - kernel), kernel);
    if (locals) append_structure(text, name, body);
    if (locals) append_names(text, body, true);
    for (int i = 0; i < QUERIES; i++) text_printf(text, "#define %s(d) ((size_t)%s)\n", queries[i][0], queries[i][1]);
    /* Barriers and what `restrict` leaves of a call that is inlined are too much for some drivers. */
    text_append(text,
                "#define restrict\nstatic inline __attribute__((always_inline)) void NAME(const int *group_place, "
                "const int *group_extent, const int *item_place, const int *item_extent, ");
    if (locals) text_printf(text, "local struct shared_%s *group_memory, ", name);
    for (; (at = next_locals(body, &length)); body = at + length + 1) text_printf(text, "%.*s", (int)(at - body), body);
    text_printf(text, "%s\n#undef restrict\n", body);
    for (int i = 0; i < QUERIES; i++) text_printf(text, "#undef %s\n", queries[i][0]);
    if (locals) append_names(text, strstr(kernel, KERNEL_BEGIN), false);
    text_append(text, "#undef NAME\n#endif\n");
}

static void append_sizes(struct text *text, const char *name, const size_t sizes[3]) {
    text_printf(text, "        const int %s[3] = {%zu, %zu, %zu};\n", name, sizes[0], sizes[1], sizes[2]);
}

/* The call of one function for several launches with the same kernel, by the groups of the merged one from `begin` on.
 * Returns how many those are. */
static size_t append_call(struct text *text, const char *name, struct launch *const *launches, size_t count,
                          const struct launch *whole, size_t items, size_t begin, bool last) {
    const struct launch *first = launches[0];
    const size_t ones[3] = {1, 1, 1};
    bool fixed = fixed_group(first) > 0;
    size_t all = launch_items(first), each = fixed ? all / items : (all + items - 1) / items, groups[3];
    for (int d = 0; d < 3; d++) groups[d] = fixed ? first->global[d] / first->local[d] : first->global[d];
    /* The last needs no condition; most kernels have just one function. */
    if (last)
        text_append(text, begin ? " else {\n" : "    {\n");
    else
        text_printf(text, "%s(group < %zu) {\n", begin ? " else if " : "    if ", begin + each * count);
    text_printf(text, "        const int which = (group - %zu) / %zu, rest = (group - %zu) %% %zu;\n", begin, each,
                begin, each);
    text_append(text, "        (void)which;\n");
    append_sizes(text, "extent", groups);
    append_sizes(text, "size", fixed ? first->local : ones);
    if (fixed)
        text_append(text, "        const int at = rest, inside[3] = {lid % size[0], lid / size[0] % size[1], "
                          "lid / (size[0] * size[1])};\n");
    else
        text_printf(text, "        const int at = rest * %zu + lid, inside[3] = {0, 0, 0};\n", items);
    text_append(text, "        const int place[3] = {at % extent[0], at / extent[0] % extent[1], "
                      "at / (extent[0] * extent[1])};\n");
    if (!fixed) text_printf(text, "        if (at < %zu)\n    ", all);
    text_printf(text, "        %s(place, extent, inside, size", name);
    if (has_locals(first->text)) text_printf(text, ", (local struct shared_%s *)memory", name);
    append_choice(text, launches, count, whole->buffers, whole->buffer_count);
    text_append(text, ");\n    }");
    return each * count;
}

struct launch *merged_gpu(struct launch_list *list, const struct kernel_target *target, struct launch *const *parts,
                          size_t count) {
    enum { FREE_GROUP = 128 }; /* of parts that do not care */
    struct text text, body, memory;
    text_init(&text), text_init(&body), text_init(&memory);
    struct launch *launch = merge_begin(list, parts, count);
    struct launch **same = arena_array(&list->arena, count, sizeof *same);
    if (!launch || !same) return NULL;
    size_t items = 0, groups = 0, called = 0;
    for (size_t k = 0; k < count; k++) {
        size_t own = fixed_group(parts[k]);
        if (own) items = own;
    }
    if (!items) items = target->traits->max_work_group < FREE_GROUP ? target->traits->max_work_group : FREE_GROUP;
    for (size_t k = 0; k < count; k++) {
        char name[PART_NAME];
        size_t same_count = collect_same(parts, count, k, same);
        if (!same_count) continue;
        called += same_count;
        part_name(parts[k], name);
        append_function(&text, name, parts[k]->text);
        if (has_locals(parts[k]->text)) text_printf(&memory, "        struct shared_%s part%zu;\n", name, k);
        groups += append_call(&body, name, same, same_count, launch, items, groups, called == count);
    }
    memcpy(launch->global, (size_t[3]){groups * items, 1, 1}, sizeof launch->global);
    memcpy(launch->local, (size_t[3]){items, 1, 1}, sizeof launch->local);
    text_printf(&text, "#undef NAME\n#define NAME KERNEL\n%s%zu, 1, 1)))\n" KERNEL_BEGIN, attribute, items);
    launch_arguments(&text, launch->buffers, launch->buffer_count, launch->output_count, "");
    text_append(&text, ") {\n");
    if (memory.length)
        text_printf(&text, "    local uchar memory[sizeof(union {\n%s    })] __attribute__((aligned(16)));\n",
                    text_get(&memory));
    text_append(&text, "    const int group = (int)get_group_id(0), lid = (int)get_local_id(0);\n");
    text_printf(&text, "%s\n}\n", text_get(&body));
    launch->text = arena_copy_text(&list->arena, text_get(&text));
    bool failed = list->arena.failed || text.failed || body.failed || memory.failed;
    text_finish(&text), text_finish(&body), text_finish(&memory);
    return failed ? NULL : launch;
}
