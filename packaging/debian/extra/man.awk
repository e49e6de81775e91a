# What go-md2man leaves to be mended in a man page; extra/man says why.

{
    gsub(/\\fB\\fC/, "\\fB")
    gsub(/\\fC/, "\\fB")
    gsub(/ \\\[la\][^\\]*\.md\\\[ra\]/, "")
}

!/^\./ {
    gsub(/\\-/, "-")
    gsub(/-/, "\\-")
}

/^\.TS$/ { table = 1 }
/^\.TE$/ { table = 0 }

# The formats of header and rows, "l l l " and "l l l .": the first column as wide as it must be.
table && /^l / {
    columns = gsub(/l/, "l")
    line = "l"
    for (column = 2; column <= columns; column++) line = line " lx"
    print line ($0 ~ /\.$/ ? "." : "")
    next
}

table && /\t/ && !/T[{}]/ {
    cells = split($0, cell, /\t/)
    line = cell[1]
    for (column = 2; column <= cells; column++) line = line "\tT{\n" cell[column] "\nT}"
    print line
    next
}

/^\.PP$/ && heading { next }

{
    heading = /^\.S[HS] /
    print
}
