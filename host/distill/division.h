/* How a team of devices divides a run: which member computes what, by whole numbers that a run can write down. They are
 * settled once, before the first step, and never follow the load: so a run has the same bytes whenever it is repeated.
 */
#ifndef RETORT_DISTILL_DIVISION_H
#define RETORT_DISTILL_DIVISION_H

struct team;

/* Of an outer step each member computes some of the trajectories, or all of them with some rows of every batch. The
 * networks of an evaluation are always divided as wholes. */
enum divide { DIVIDE_AUTO, DIVIDE_TRAJECTORIES, DIVIDE_ROWS }; /* auto: not settled yet */

struct division {
    struct team *team; /* this device's membership; NULL: it is the only one */
    enum divide what;
    const int *shares; /* [team_size], from 1: what each computes is in their ratio; NULL: alike */
};

enum { DIVISION_FINEST = 20 }; /* measured shares are multiples of a twentieth of the fastest member's */
/* Shares [count] by the seconds that each takes for the same work. */
void division_by_speed(const double *seconds, int count, int *shares);
/* Called by all members, with the seconds that each takes for a step of its own: shares [team_size] by their speed. */
int division_measure(struct team *team, double seconds, int *shares);

/* Things dealt out to the members, in their order. */
struct deal {
    int *counts;      /* [team_size]; owned */
    int first, count; /* this member's: `count` of them, from `first` on */
};
/* Each member gets `least` or more where there are enough. What the ratio leaves over goes to the largest remainders,
 * among equal ones to the earlier member. RETORT_ENOMEM. */
int division_deal(const struct division *division, int total, int least, struct deal *deal);
void deal_finish(struct deal *deal); /* NULL-safe, zeroes */

#endif
