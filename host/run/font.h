/* Letters for pictures: printable ASCII of five by nine pixels, drawn for this program. */
#ifndef RETORT_RUN_FONT_H
#define RETORT_RUN_FONT_H

#include <stdbool.h>

#define FONT_WIDTH   5
#define FONT_HEIGHT  9 /* seven above the line that letters stand on, two below it */
#define FONT_ADVANCE 6 /* from one letter to the next */

/* Letters of a text, which is UTF-8: whatever is not ASCII counts, and is drawn, as one question mark. */
int font_length(const char *text);
/* Whether letter `index` of a text has ink at a column and row of its box. */
bool font_ink(const char *text, int index, int column, int row);

#endif
