#include "report/report.h"

#include "base/error.h"
#include "report/page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* RUN/report.html; of several runs report.html. */
static int choose_place(const char *const *runs, size_t count, const char *out, char path[FILE_PATH_MAX]) {
    int status = RETORT_OK;
    if (out && !*out) RAISE(RETORT_EINVAL, "the name of the report is empty");
    if (!out && count == 1) return path_join(runs[0], "report.html", path);
    if (!out) out = "report.html";
    if (strlen(out) >= FILE_PATH_MAX) RAISE(RETORT_EINVAL, "path too long: %s", out);
    strcpy(path, out);
done:
    return status;
}

int report_write(const char *const *runs, size_t count, const char *out, char **written) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    struct text page;
    struct record *records = calloc(count, sizeof *records);
    text_init(&page);
    if (!records) RAISE(RETORT_ENOMEM, "out of memory");
    TRY(choose_place(runs, count, out, path));
    for (size_t i = 0; i < count; i++) TRY(record_read(runs[i], &records[i]));
    TRY(page_check_place(path));
    if (count == 1)
        run_page(&page, &records[0]);
    else
        comparison_page(&page, records, count);
    if (page.failed) RAISE(RETORT_ENOMEM, "out of memory writing %s", path);
    TRY(file_write(path, text_get(&page), page.length));
    char *copy = strdup(path);
    if (!copy) RAISE(RETORT_ENOMEM, "out of memory");
    *written = copy;
done:
    for (size_t i = 0; records && i < count; i++) record_finish(&records[i]);
    free(records);
    text_finish(&page);
    return status;
}
