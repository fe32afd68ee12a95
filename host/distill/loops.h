/* The loops of an iteration of gradient matching: `outer` matches, and before each but the first some epochs of the set
 * that the network learns from. Published by images per class (Zhao, Mopuri and Bilen 2021), or by the rules of EGM
 * (Jiang et al. 2022). */
#ifndef RETORT_DISTILL_LOOPS_H
#define RETORT_DISTILL_LOOPS_H

enum adaptive {
    ADAPTIVE_NONE,  /* `inner` epochs */
    ADAPTIVE_LOSS,  /* until the loss on real images rises, `inner` epochs at most */
    ADAPTIVE_TABLE, /* as the released script has it: 50, 40, 30, 20, then 10, from the eleventh on 5 */
};

struct loops {
    enum adaptive adaptive;
    int outer, inner;
};
/* What is 0 becomes as published. RETORT_EINVAL where nothing is for so many images per class. */
int loops_settle(enum adaptive adaptive, int outer, int inner, int ipc, struct loops *loops);
/* Epochs before match `match` of an iteration, from 0; ADAPTIVE_LOSS: at most. */
int loops_epochs(const struct loops *loops, int match);
/* The most of them, and the average over an iteration's matches. */
int loops_most(const struct loops *loops);
double loops_mean(const struct loops *loops);

#endif
