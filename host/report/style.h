/* The style sheet of every page. */
#ifndef RETORT_REPORT_STYLE_H
#define RETORT_REPORT_STYLE_H

extern const char style_sheet[];

#endif
