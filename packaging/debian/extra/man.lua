-- For pandoc: make our Markdown pages man pages that look as those of Debian do.

-- A table that isn't wider is set as it is, characters; the page has about 70.
local PAGE = 66
-- In one that is wider, a column that isn't wider than this keeps its width; the others share the rest.
local NARROW = 20
local GAP = 3

function Code(code)
  local text = code.text:gsub("\\|", "|") -- as it has to be written in a table
  return pandoc.Strong { pandoc.Str(text) }
end

-- Where a link within our pages leads is nowhere on a terminal.
function Link(link)
  if not link.target:find("://") then return link.content end
end

local function longest(column, rows)
  local most = 0
  for _, row in ipairs(rows) do
    most = math.max(most, utf8.len(pandoc.utils.stringify(row[column])))
  end
  return most
end

-- A path or a long name may be broken behind these.
local function breakable(str)
  if #str.text <= NARROW / 2 then return nil end
  local parts = {}
  for part in str.text:gmatch("[^/._]*[/._]*") do
    if part ~= "" then
      if #parts > 0 then table.insert(parts, pandoc.RawInline("man", "\\:")) end
      table.insert(parts, pandoc.Str(part))
    end
  end
  return parts
end

local function broken(cell)
  return pandoc.walk_block(pandoc.Div(cell), { Str = breakable }).content
end

function Table(full)
  local simple = pandoc.utils.to_simple_table(full)
  local rows = { simple.header, table.unpack(simple.rows) }
  local widths, sum, left, sharing = {}, 0, PAGE, 0
  for column = 1, #simple.header do
    widths[column] = longest(column, rows)
    sum = sum + widths[column] + GAP
    if widths[column] > NARROW then
      sharing = sharing + 1
      left = left - GAP
    else
      left = left - widths[column] - GAP
    end
  end
  for column, width in ipairs(widths) do
    if sum <= PAGE then
      simple.widths[column] = 0
    elseif width > NARROW then
      simple.widths[column] = left / sharing / PAGE
    else
      simple.widths[column] = width / PAGE
    end
  end
  if sum > PAGE then
    for _, row in ipairs(simple.rows) do
      for column, cell in ipairs(row) do row[column] = broken(cell) end
    end
  end
  return pandoc.utils.from_simple_table(simple)
end
