#include "run/profile.h"

struct figures {
    double share, gflops, gb_per_s, share_of_peak;
    bool copy_bound;
};

static struct device_profile_row total_row(const struct device_profile *profile) {
    struct device_profile_row total = {.name = "total"};
    for (size_t i = 0; i < profile->count; i++) {
        const struct device_profile_row *row = &profile->rows[i];
        total.launches += row->launches;
        total.seconds += row->seconds;
        total.flops += row->flops;
        total.bytes += row->bytes;
    }
    return total;
}

static struct figures figures(const struct device_profile_row *row, double total_seconds,
                              const struct device_peaks *peaks) {
    struct figures f = {0};
    if (!(row->seconds > 0)) return f;
    double fma = row->flops / row->seconds / peaks->flops, copy = row->bytes / row->seconds / peaks->bytes;
    f.share = row->seconds / total_seconds;
    f.gflops = row->flops / row->seconds * 1e-9;
    f.gb_per_s = row->bytes / row->seconds * 1e-9;
    f.copy_bound = copy > fma;
    f.share_of_peak = f.copy_bound ? copy : fma;
    return f;
}

json_t *profile_json(const struct device_profile *profile, const struct device_peaks *peaks) {
    json_t *rows = json_array();
    const double total = total_row(profile).seconds;
    for (size_t i = 0; i < profile->count; i++) {
        const struct device_profile_row *row = &profile->rows[i];
        struct figures f = figures(row, total, peaks);
        json_t *item =
            json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:s}", "kernel", row->name, "launches",
                      (json_int_t)row->launches, "seconds", row->seconds, "share", f.share, "gflops", f.gflops,
                      "gb_per_s", f.gb_per_s, "share_of_peak", f.share_of_peak, "bound", f.copy_bound ? "copy" : "fma");
        if (json_array_append_new(rows, item) < 0) {
            json_decref(rows);
            return NULL;
        }
    }
    return rows;
}

void profile_table(const struct device_profile *profile, const struct device_peaks *peaks, struct text *text) {
    const struct device_profile_row total = total_row(profile);
    text_printf(text, "%10s %7s %9s %10s %9s %8s  %-10s %s\n", "seconds", "share", "launches", "us each", "GFLOP/s",
                "GB/s", "of peak", "kernel");
    for (size_t i = 0; i <= profile->count; i++) {
        const struct device_profile_row *row = i < profile->count ? &profile->rows[i] : &total;
        struct figures f = figures(row, total.seconds, peaks);
        text_printf(text, "%10.4f %5.1f %% %9zu %10.1f %9.1f %8.2f  %3.0f %% %-4s %s\n", row->seconds, 100 * f.share,
                    row->launches, row->launches ? 1e6 * row->seconds / (double)row->launches : 0.0, f.gflops,
                    f.gb_per_s, 100 * f.share_of_peak, f.copy_bound ? "copy" : "fma", row->name);
    }
    text_printf(
        text,
        "of peak: of %.1f GFLOP/s of multiply-adds or %.1f GB/s of a copy, whichever share is larger; bytes are "
        "each buffer once\n",
        peaks->flops * 1e-9, peaks->bytes * 1e-9);
}
