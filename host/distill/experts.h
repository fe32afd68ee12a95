/* Expert trajectories: the weights of networks after each epoch of their training on real data, which methods match.
 *
 * Here they are trained, and here a method reads them, through a function that it is given: whoever opens files
 * (run/expert_store.h) keeps them. */
#ifndef RETORT_DISTILL_EXPERTS_H
#define RETORT_DISTILL_EXPERTS_H

#include "compile/executable.h"
#include "data/data.h"
#include "nn/nn.h"

/* What a method's keys say of the experts that it reads. */
struct expert_wish {
    const char *folder; /* where they lie, for whoever opens files; NULL: the method reads none */
    bool augment, flip; /* how they are to be trained: differentiable augmentation, with mirroring among its families */
    int epochs;         /* the last that it may read */
};

/* Trajectories that are there. */
struct expert_source {
    int networks, epochs;
    const void *context;
    /* theta [p] of a network (from 0) after an epoch (0: its initial weights). */
    int (*read)(const void *context, int network, int epoch, float *theta);
};

/* How they are trained: plain SGD on batches of all real images, in a new order in each epoch, whose last images, fewer
 * than a batch, are left out. As published: 50 epochs, rate 0.01, batches of 256 (Cazenavette et al., "Dataset
 * distillation by matching training trajectories", CVPR 2022). */
struct expert_spec {
    int epochs; /* at most EXPERT_MOST_EPOCHS */
    double lr;
    int batch; /* data of fewer images are one batch */
    bool augment, flip;
    uint64_t seed;
};
enum { EXPERT_MOST_EPOCHS = 4000, EXPERT_MOST_NETWORKS = 100000 };

struct experts;
/* Compiles and allocates; what is pointed to is borrowed. */
int experts_create(struct library *library, const struct dataset *train, const struct network *network,
                   const struct expert_spec *spec, const volatile int *interrupt, struct experts **experts);
void experts_destroy(struct experts *experts); /* NULL-safe */
/* Seconds that one network will take, by a trial of a few of its steps. */
int experts_forecast(struct experts *experts, double *seconds);
/* Trains a network into thetas [epochs + 1, p]. The bytes follow from data, settings, seed and the number of the
 * network alone, on one device. `told`, where not NULL, is called after each epoch. RETORT_ENUMERIC where it diverges,
 * RETORT_EINTERRUPTED where `interrupt` is set. */
int experts_train(struct experts *experts, int number, float *thetas, void (*told)(void *user, int epoch), void *user);

#endif
