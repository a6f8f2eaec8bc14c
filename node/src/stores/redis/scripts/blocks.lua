-- Blocks of a list, as they were at one moment: the one that begins below an ordinal, since it may reach beyond it, and
-- those that begin from there on.
--
-- KEYS: list
-- ARGV: ordinal (8 bytes), upper bound as Redis writes it, how many of the latter at most
local below = redis.call('ZREVRANGEBYLEX', KEYS[1], '(' .. ARGV[1], '-', 'LIMIT', 0, 1)
local found = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
if below[1] then
  table.insert(found, 1, below[1])
end
return found
