# Puts the keys of docs/descriptor.md, which the program prints, into the manual page of descriptors:
#   awk -f keys.awk retort-descriptor.5.in ../descriptor.md
FNR == 1 { file++ }
file == 1 { page[++lines] = $0; next }

# Every sentence on lines of its own, as manual pages are written; what stands in backquotes is bold.
function words(text,   count, i, all, line, parts) {
  gsub(/\\/, "\\e", text)
  while (match(text, /`[^`]*`/))
    text = substr(text, 1, RSTART - 1) "\\fB" substr(text, RSTART + 1, RLENGTH - 2) "\\fP" substr(text, RSTART + RLENGTH)
  count = split(text, parts, " ")
  for (i = 1; i <= count; i++) {
    if (line != "" && (parts[i - 1] ~ /\.$/ || length(line " " parts[i]) > 79)) {
      all = all line "\n"
      line = ""
    }
    line = line (line != "" ? " " : parts[i] ~ /^[.']/ ? "\\&" : "") parts[i]
  }
  return all line "\n"
}
function end_list() {
  if (listing) keys = keys ".El\n"
  listing = 0
}

/^## / {
  end_list()
  keys = keys ".Ss " toupper(substr($0, 4, 1)) substr($0, 5) "\n.Bl -tag -width Ds\n"
  listing = 1
}
/^- / {
  split($0, parts, "`")
  rest = substr($0, length(parts[2]) + 5)
  method = ""
  if (match(rest, /^ \([a-z]+\)/)) {
    method = " Pq " substr(rest, 3, RLENGTH - 3)
    rest = substr(rest, RLENGTH + 1)
  }
  sub(/^: /, "", rest)
  keys = keys ".It Va " parts[2] method "\n" words(toupper(substr(rest, 1, 1)) substr(rest, 2))
}

END {
  end_list()
  for (i = 1; i <= lines; i++)
    if (page[i] == ".\\\" KEYS") printf ".Sh KEYS\n%s", keys
    else print page[i]
}
