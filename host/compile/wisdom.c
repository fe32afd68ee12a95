#include "compile/wisdom.h"

#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file: this line, then lines of fields parted by tabs:
 *
 *     conv  DEVICE  DRIVER  LANES UNITS  PASS N C H W O KERNEL_HEIGHT KERNEL_WIDTH STRIDE PADDING
 *           OUTPUTS INPUTS WEIGHTS MASK  VARIANT PARAMETER...
 *     gemm  DEVICE  DRIVER  LANES UNITS  product BATCH M N K  TRANSPOSE_A TRANSPOSE_B  VARIANT PARAMETER...
 *     bad   the same fields as one of those: that choice is never taken, for whichever N or BATCH
 *     tuned DEVICE  DRIVER  LANES UNITS
 *
 * VARIANT is a name of kernels.c with as many parameters as it has, but for optional ones at the end that say nothing;
 * of a product without them, where all are 0. Files of version 1 say METHOD TILE TILE TILE instead, where METHOD is 4,
 * 2 or 0 for the variants named in version_1.
 */
#define FIRST_LINE     "retort wisdom 2"
#define OLD_FIRST_LINE "retort wisdom 1"

enum { FILE_LIMIT = 4 << 20, FIELDS = 7, CLASS_NUMBERS = 9, TERMS_NUMBERS = 4, PRODUCT_NUMBERS = 4 };

static const char *const version_1[] = {[0] = "direct", [2] = "winograd2", [4] = "winograd4"};
enum { VERSION_1 = sizeof version_1 / sizeof *version_1 };

static const char *const pass_names[] = {"forward", "backward-data", "backward-weight"};

enum kind { KIND_CONV, KIND_PRODUCT, KIND_BAD, KIND_TUNED, KINDS };
static const char *const kind_names[KINDS] = {"conv", "gemm", "bad", "tuned"};

struct decision {
    enum kind kind;
    const char *device;        /* its first fields, from DEVICE to UNITS, as they stand in the file */
    struct kernel_class class; /* this and the next not of KIND_TUNED */
    struct kernel_choice choice;
};

struct wisdom {
    struct arena arena;
    ARRAY(struct decision) decisions;
};

void wisdom_path(char path[FILE_PATH_MAX]) {
    const char *setting = getenv("RETORT_WISDOM");
    char folder[FILE_PATH_MAX];
    path[0] = '\0';
    if (setting && strcmp(setting, "off") == 0) return;
    if (setting && *setting) {
        if (snprintf(path, FILE_PATH_MAX, "%s", setting) >= FILE_PATH_MAX) path[0] = '\0';
    } else if (folder_cache(folder) && path_join(folder, "wisdom", path) < 0) {
        path[0] = '\0';
        error_clear();
    }
}

/* --- text --- */
/* A name as a field: without tabs, newlines and the like. */
static void append_field(struct text *text, const char *words) {
    for (; *words; words++) text_printf(text, "%c", (unsigned char)*words < ' ' ? ' ' : *words);
}

static char *device_fields(struct arena *arena, const struct kernel_target *target) {
    struct text text;
    text_init(&text);
    append_field(&text, target->traits->name);
    text_append(&text, "\t");
    append_field(&text, target->traits->driver);
    text_printf(&text, "\t%d %u", target->lanes, target->traits->compute_units);
    char *fields = text.failed ? NULL : arena_copy_text(arena, text_get(&text));
    text_finish(&text);
    return fields;
}

/* The variant and its parameters. `old` names variants of version 1 by their numbers: what names a set of decisions
 * must not change because files do. */
static void append_choice(struct text *text, const struct kernel_choice *choice, bool old) {
    const struct kernel_variant *variant = kernels_variant(choice->variant);
    int number = VERSION_1 - 1;
    while (number >= 0 && (!version_1[number] || strcmp(version_1[number], choice->variant) != 0)) number--;
    if (old && number >= 0)
        text_printf(text, "%d", number);
    else
        text_append(text, choice->variant);
    if (variant->product && choice->parameters[0] == 0) return;
    int count = variant->numbers;
    while (count > variant->numbers - variant->optional
           && choice->parameters[count - 1] == (choice->parameters[0] != 0))
        count--;
    for (int i = 0; i < count; i++) text_printf(text, " %d", choice->parameters[i]);
}

static void append_class(struct text *text, const struct kernel_class *class) {
    const struct conv_sizes *s = &class->sizes;
    const struct conv_terms *t = &class->terms;
    const struct matmul_sizes *p = &class->product;
    if (class_is_product(class))
        text_printf(text, "product %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\t%d %d\t", p->batch, p->m, p->n,
                    p->k, p->transpose_a, p->transpose_b);
    else
        text_printf(text,
                    "%s %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
                    " %d %d\t%d %d %d %u\t",
                    pass_names[class->pass], s->n, s->c, s->h, s->w, s->o, s->kh, s->kw, s->stride, s->padding,
                    t->outputs, t->inputs, t->weights, t->mask);
}

static void append_task(struct text *text, const struct kernel_class *class, const struct kernel_choice *choice,
                        bool old) {
    append_class(text, class);
    append_choice(text, choice, old);
}

void wisdom_write_task(struct text *text, const struct kernel_class *class, const struct kernel_choice *choice) {
    append_task(text, class, choice, false);
}

static void append_decision(struct text *text, const struct decision *d, bool old) {
    text_printf(text, "%s\t%s", kind_names[d->kind], d->device);
    if (d->kind != KIND_TUNED) {
        text_append(text, "\t");
        append_task(text, &d->class, &d->choice, old);
    }
    text_append(text, "\n");
}

/* Exactly `count` numbers from 0 to 2^31 - 1. */
static bool read_numbers(const char *field, int64_t *numbers, int count) {
    for (int i = 0; i < count; i++) {
        char *end;
        errno = 0;
        numbers[i] = *field >= '0' && *field <= '9' ? strtoll(field, &end, 10) : -1;
        if (numbers[i] < 0 || numbers[i] > INT32_MAX || errno || *end != (i + 1 < count ? ' ' : '\0')) return false;
        field = end + 1;
    }
    return true;
}

static bool read_product(const char *sizes, const char *transposes, struct kernel_class *class) {
    int64_t s[PRODUCT_NUMBERS], t[2];
    if (!read_numbers(sizes, s, PRODUCT_NUMBERS) || !read_numbers(transposes, t, 2)) return false;
    if (s[0] == 0 || t[0] > 1 || t[1] > 1) return false;
    *class = class_of_product(&(struct matmul_sizes){s[0], s[1], s[2], s[3], t[0], t[1]});
    return true;
}

static bool read_class(char *sizes, const char *terms, struct kernel_class *class) {
    int64_t s[CLASS_NUMBERS], t[TERMS_NUMBERS];
    char *blank = strchr(sizes, ' ');
    int pass = CONV_BACKWARD_WEIGHT;
    if (!blank) return false;
    *blank = '\0';
    if (strcmp(sizes, "product") == 0) return read_product(blank + 1, terms, class);
    while (pass >= 0 && strcmp(sizes, pass_names[pass]) != 0) pass--;
    if (pass < 0 || !read_numbers(blank + 1, s, CLASS_NUMBERS) || !read_numbers(terms, t, TERMS_NUMBERS)) return false;
    if (s[7] == 0) return false; /* a stride */
    *class = (struct kernel_class){
        .pass = (enum conv_pass)pass,
        .sizes = {.n = s[0], .c = s[1], .h = s[2], .w = s[3], .o = s[4], .kh = s[5], .kw = s[6]},
        .terms = {.outputs = (int)t[0], .inputs = (int)t[1], .weights = (int)t[2], .mask = (unsigned)t[3]},
    };
    class->sizes.stride = (int)s[7];
    class->sizes.padding = (int)s[8];
    class->sizes.oh = (s[2] + 2 * s[8] - s[5]) / s[7] + 1;
    class->sizes.ow = (s[3] + 2 * s[8] - s[6]) / s[7] + 1;
    return true;
}

/* The parameters of a variant; those that a file left out are as its own rules have them. */
static bool read_parameters(const char *field, const struct kernel_variant *variant, int *parameters) {
    int64_t numbers[CHOICE_PARAMETERS] = {0};
    int count = 1;
    for (const char *at = field; *at; at++) count += *at == ' ';
    if (count > variant->numbers || count < variant->numbers - variant->optional
        || !read_numbers(field, numbers, count))
        return false;
    for (int i = 0; i < variant->numbers; i++) parameters[i] = i < count ? (int)numbers[i] : numbers[0] != 0;
    return true;
}

/* A field as append_choice writes it, in either form. The field is changed. */
static bool read_choice(char *field, struct kernel_choice *choice) {
    char *parameters = strchr(field, ' ');
    if (parameters) *parameters++ = '\0';
    const char *name = field;
    if (field[0] >= '0' && field[0] < '0' + VERSION_1 && !field[1]) name = version_1[field[0] - '0'];
    const struct kernel_variant *variant = kernels_variant(name);
    if (!variant || (parameters ? variant->numbers == 0 : !variant->product)) return false;
    *choice = (struct kernel_choice){.variant = variant->name};
    return !parameters || read_parameters(parameters, variant, choice->parameters);
}

bool wisdom_read_task(char *text, struct kernel_class *class, struct kernel_choice *choice) {
    char *terms = strchr(text, '\t'), *way = terms ? strchr(terms + 1, '\t') : NULL;
    if (!way) return false;
    *terms++ = *way++ = '\0';
    return read_class(text, terms, class) && read_choice(way, choice)
           && kernels_variant(choice->variant)->product == class_is_product(class);
}

/* Takes a line apart, which is changed. */
static bool read_line(char *line, struct decision *decision) {
    enum { OF_DEVICE = 4 }; /* the fields of a line without a class */
    char *fields[FIELDS] = {line};
    int64_t units[2];
    int count = 1, kind = KINDS - 1;
    for (char *tab; count < FIELDS && (tab = strchr(fields[count - 1], '\t')); count++) {
        *tab = '\0';
        fields[count] = tab + 1;
    }
    while (kind >= 0 && strcmp(fields[0], kind_names[kind]) != 0) kind--;
    if (kind < 0 || count != (kind == KIND_TUNED ? OF_DEVICE : FIELDS) || !read_numbers(fields[3], units, 2))
        return false;
    *decision = (struct decision){.kind = (enum kind)kind, .device = fields[1]};
    if (kind != KIND_TUNED) {
        /* cppcheck-suppress negativeIndex; every field but the first stands behind a tab */
        fields[5][-1] = fields[6][-1] = '\t';
        if (!wisdom_read_task(fields[4], &decision->class, &decision->choice)) return false;
        if (kind != KIND_BAD && (kind == KIND_PRODUCT) != class_is_product(&decision->class)) return false;
    }
    /* cppcheck-suppress negativeIndex */
    fields[2][-1] = fields[3][-1] = '\t';
    return true;
}

bool kernel_class_equal(const struct kernel_class *a, const struct kernel_class *b) {
    const struct conv_sizes *s = &a->sizes, *z = &b->sizes;
    const struct matmul_sizes *p = &a->product, *q = &b->product;
    if (class_is_product(a) || class_is_product(b))
        return p->batch == q->batch && p->m == q->m && p->n == q->n && p->k == q->k && p->transpose_a == q->transpose_a
               && p->transpose_b == q->transpose_b;
    return a->pass == b->pass && s->n == z->n && s->c == z->c && s->h == z->h && s->w == z->w && s->o == z->o
           && s->kh == z->kh && s->kw == z->kw && s->stride == z->stride && s->padding == z->padding
           && a->terms.outputs == b->terms.outputs && a->terms.inputs == b->terms.inputs
           && a->terms.weights == b->terms.weights && a->terms.mask == b->terms.mask;
}

/* Whether a class is another, or another with more or fewer images or matrices. */
static bool equal_but_batch(const struct kernel_class *a, const struct kernel_class *b) {
    struct kernel_class other = *b;
    if (class_is_product(a) != class_is_product(b)) return false;
    other.sizes.n = a->sizes.n;
    other.product.batch = a->product.batch;
    return kernel_class_equal(a, &other);
}

static bool choice_equal(const struct kernel_choice *a, const struct kernel_choice *b) {
    return strcmp(a->variant, b->variant) == 0 && memcmp(a->parameters, b->parameters, sizeof a->parameters) == 0;
}

/* Whether a decision says that a choice is bad for a class. */
static bool says_bad(const struct decision *d, const struct kernel_class *class, const struct kernel_choice *choice) {
    return d->kind == KIND_BAD && choice_equal(&d->choice, choice)
           && (equal_but_batch(&d->class, class) || kernels_variant(choice->variant)->library);
}

static bool is_choice(const struct decision *d) {
    return d->kind == KIND_CONV || d->kind == KIND_PRODUCT;
}

/* Whether one stands in the other's place. */
static bool is_about(const struct decision *a, const struct decision *b) {
    if (a->kind != b->kind || strcmp(a->device, b->device) != 0) return false;
    if (is_choice(a)) return kernel_class_equal(&a->class, &b->class);
    return a->kind == KIND_TUNED || says_bad(a, &b->class, &b->choice);
}

/* Enters a decision, in the place of an earlier one about the same on the same device. */
static int enter(struct wisdom *wisdom, const struct decision *decision) {
    for (size_t i = 0; i < wisdom->decisions.count; i++) {
        struct decision *known = &wisdom->decisions.items[i];
        if (!is_about(known, decision)) continue;
        known->choice = decision->choice;
        return RETORT_OK;
    }
    struct decision copy = *decision;
    copy.device = arena_copy_text(&wisdom->arena, decision->device);
    if (!copy.device || !array_push(&wisdom->decisions, copy)) return error_set(RETORT_ENOMEM, "out of memory");
    return RETORT_OK;
}

static enum kind kind_of(const struct kernel_class *class) {
    return class_is_product(class) ? KIND_PRODUCT : KIND_CONV;
}

static int create(struct wisdom **wisdom) {
    *wisdom = calloc(1, sizeof **wisdom);
    if (!*wisdom) return error_set(RETORT_ENOMEM, "out of memory");
    arena_init(&(*wisdom)->arena);
    return RETORT_OK;
}

/* Reads a file: with `target` what is for its device and what its kernels allow, and nothing from a file that cannot be
 * read; without it every decision, to be written back. */
static int read_file(const char *path, const struct kernel_target *target, struct wisdom *wisdom) {
    int status = RETORT_OK, damaged = 0, first_damaged = 0, number = 0;
    unsigned char *data = NULL;
    size_t size = 0;
    char *device = target ? device_fields(&wisdom->arena, target) : NULL;
    if (target && !device) RAISE(RETORT_ENOMEM, "out of memory");
    if (!*path || !file_exists(path)) goto done;
    status = file_read(path, FILE_LIMIT, &data, &size);
    if (status == RETORT_ENOMEM || (status < 0 && !target)) goto done;
    if (status < 0) {
        log_warning("wisdom is not used: %s", retort_error_message());
        error_clear();
        status = RETORT_OK;
        goto done;
    }
    for (char *line = (char *)data, *next; line < (char *)data + size; line = next) {
        size_t left = size - (size_t)(line - (char *)data);
        char *end = memchr(line, '\n', left);
        next = end ? end + 1 : line + left;
        if (end) *end = '\0';
        if (++number == 1) {
            if (strcmp(line, FIRST_LINE) == 0 || strcmp(line, OLD_FIRST_LINE) == 0) continue;
            if (!target)
                RAISE(RETORT_EFORMAT,
                      "%s:1: expected \"%s\": no wisdom of this version; move it away or name another "
                      "file by RETORT_WISDOM",
                      path, FIRST_LINE);
            log_warning("%s:1: expected \"%s\": this wisdom is not used", path, FIRST_LINE);
            break;
        }
        struct decision decision;
        bool whole = strlen(line) == (size_t)(next - line) - (end != NULL), good = whole && read_line(line, &decision);
        if (good && target) {
            if (strcmp(decision.device, device) != 0) continue;
            if (is_choice(&decision)) good = kernels_fits(target, &decision.class, &decision.choice);
        }
        if (good)
            TRY(enter(wisdom, &decision));
        else if (damaged++ == 0)
            first_damaged = number;
    }
    if (damaged && target)
        log_warning("%s:%d: not a decision that can be used: ignored%s", path, first_damaged,
                    damaged > 1 ? ", with others below" : "");
done:
    free(data);
    return status;
}

int wisdom_load(const char *path, const struct kernel_target *target, struct wisdom **wisdom) {
    int status = RETORT_OK;
    struct wisdom *fresh = NULL;
    TRY(create(&fresh));
    TRY(read_file(path, target, fresh));
    *wisdom = fresh;
    fresh = NULL;
done:
    wisdom_destroy(fresh);
    return status;
}

int wisdom_of_one(const struct kernel_class *class, const struct kernel_choice *choice, struct wisdom **wisdom) {
    int status = RETORT_OK;
    struct wisdom *fresh = NULL;
    TRY(create(&fresh));
    TRY(enter(fresh, &(struct decision){kind_of(class), "", *class, *choice}));
    *wisdom = fresh;
    fresh = NULL;
done:
    wisdom_destroy(fresh);
    return status;
}

void wisdom_destroy(struct wisdom *wisdom) {
    if (!wisdom) return;
    array_finish(&wisdom->decisions);
    arena_finish(&wisdom->arena);
    free(wisdom);
}

int wisdom_refuse(struct wisdom *wisdom, const struct kernel_target *target, const struct kernel_class *class,
                  const struct kernel_choice *choice) {
    const char *device = device_fields(&wisdom->arena, target);
    if (!device) return error_set(RETORT_ENOMEM, "out of memory");
    return enter(wisdom, &(struct decision){KIND_BAD, device, *class, *choice});
}

const struct kernel_choice *wisdom_find(const struct wisdom *wisdom, const struct kernel_class *class) {
    for (size_t i = 0; wisdom && i < wisdom->decisions.count; i++) {
        const struct decision *known = &wisdom->decisions.items[i];
        if (is_choice(known) && kernel_class_equal(&known->class, class)) return &known->choice;
    }
    return NULL;
}

bool wisdom_refuses(const struct wisdom *wisdom, const struct kernel_class *class, const struct kernel_choice *choice) {
    for (size_t i = 0; wisdom && i < wisdom->decisions.count; i++) {
        if (says_bad(&wisdom->decisions.items[i], class, choice)) return true;
    }
    return false;
}

int wisdom_library_classes(const struct wisdom *wisdom) {
    int count = 0;
    for (size_t i = 0; wisdom && i < wisdom->decisions.count; i++) {
        const struct decision *known = &wisdom->decisions.items[i];
        count += known->kind == KIND_PRODUCT && kernels_variant(known->choice.variant)->library;
    }
    return wisdom_refuses_library(wisdom) ? 0 : count;
}

bool wisdom_refuses_library(const struct wisdom *wisdom) {
    for (size_t i = 0; wisdom && i < wisdom->decisions.count; i++) {
        const struct decision *known = &wisdom->decisions.items[i];
        if (known->kind == KIND_BAD && kernels_variant(known->choice.variant)->library) return true;
    }
    return false;
}

bool wisdom_refuses_joined(const struct wisdom *wisdom, enum conv_pass pass, const struct conv_sizes *sizes,
                           const struct kernel_choice *choice) {
    for (size_t i = 0; wisdom && i < wisdom->decisions.count; i++) {
        const struct decision *known = &wisdom->decisions.items[i];
        const struct kernel_class class = {pass, *sizes, known->class.terms};
        if (known->kind == KIND_BAD && known->class.terms.inputs + known->class.terms.weights > 2
            && equal_but_batch(&known->class, &class) && choice_equal(&known->choice, choice))
            return true;
    }
    return false;
}

bool wisdom_is_tuned(const struct wisdom *wisdom) {
    for (size_t i = 0; wisdom && i < wisdom->decisions.count; i++)
        if (wisdom->decisions.items[i].kind != KIND_BAD) return true;
    return false;
}

void wisdom_name(const struct wisdom *wisdom, char name[17]) {
    uint64_t sum = 0;
    bool none = true;
    for (size_t i = 0; wisdom && i < wisdom->decisions.count; i++) {
        struct text text;
        if (wisdom->decisions.items[i].kind == KIND_TUNED) continue; /* changes no kernel */
        none = false;
        text_init(&text);
        append_decision(&text, &wisdom->decisions.items[i], true);
        sum += hash_fast(text_get(&text), text.length, 1);
        text_finish(&text);
    }
    if (none)
        strcpy(name, "none");
    else
        snprintf(name, 17, "%016" PRIx64, sum);
}

static void append_decisions(const struct wisdom *wisdom, bool marks, struct text *text) {
    for (size_t i = 0; wisdom && i < wisdom->decisions.count; i++)
        if (marks || wisdom->decisions.items[i].kind != KIND_TUNED)
            append_decision(text, &wisdom->decisions.items[i], false);
}

static int save(const struct wisdom *wisdom, bool marks, const char *others, const char *path) {
    int status = RETORT_OK;
    struct text text;
    text_init(&text);
    text_append(&text, FIRST_LINE "\n");
    append_decisions(wisdom, marks, &text);
    if (others) text_append(&text, others);
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory writing %s", path);
    TRY(file_write(path, text_get(&text), text.length));
done:
    text_finish(&text);
    return status;
}

void wisdom_lines(const struct wisdom *wisdom, struct text *text) {
    append_decisions(wisdom, false, text);
}

int wisdom_save(const struct wisdom *wisdom, const char *others, const char *path) {
    return save(wisdom, false, others, path);
}

static int create_folder_of(const char *path) {
    char folder[FILE_PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path) return RETORT_OK;
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    return folder_create(folder);
}

/* Puts a decision for the target's device into a file, or takes out what is there about the same. */
static int change_file(const char *path, const struct kernel_target *target, struct decision decision, bool forget) {
    int status = RETORT_OK, lock = -1;
    struct wisdom *all = NULL;
    char lock_path[FILE_PATH_MAX];
    if (snprintf(lock_path, sizeof lock_path, "%s.lock", path) >= FILE_PATH_MAX)
        RAISE(RETORT_EINVAL, "path too long: %s", path);
    TRY(create_folder_of(path));
    /* Whoever enters a decision at the same time reads the file only once this one is in it. */
    lock = file_lock(lock_path);
    TRY(create(&all));
    TRY(read_file(path, NULL, all));
    decision.device = device_fields(&all->arena, target);
    if (!decision.device) RAISE(RETORT_ENOMEM, "out of memory");
    if (forget) {
        size_t kept = 0;
        for (size_t i = 0; i < all->decisions.count; i++)
            if (!is_about(&all->decisions.items[i], &decision)) all->decisions.items[kept++] = all->decisions.items[i];
        if (kept == all->decisions.count) goto done;
        all->decisions.count = kept;
    } else
        TRY(enter(all, &decision));
    TRY(save(all, true, NULL, path));
done:
    if (lock >= 0) close(lock);
    if (status < 0) error_context("remembering kernels");
    wisdom_destroy(all);
    return status;
}

int wisdom_remember(const char *path, const struct kernel_target *target, const struct kernel_class *class,
                    const struct kernel_choice *choice) {
    struct decision decision = {.kind = kind_of(class), .class = *class};
    if (choice) decision.choice = *choice;
    return change_file(path, target, decision, !choice);
}

int wisdom_remember_bad(const char *path, const struct kernel_target *target, const struct kernel_class *class,
                        const struct kernel_choice *choice) {
    return change_file(path, target, (struct decision){.kind = KIND_BAD, .class = *class, .choice = *choice}, false);
}

int wisdom_remember_tuned(const char *path, const struct kernel_target *target) {
    return change_file(path, target, (struct decision){.kind = KIND_TUNED}, false);
}
