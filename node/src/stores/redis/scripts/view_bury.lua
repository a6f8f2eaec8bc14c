-- KEYS: number, rows, counters
-- ARGV: number, then of each that stands still: name, incarnation (16 hex digits), counter
-- Returns whether any row was taken out, as 1 or 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local any = 0
for n = 2, #ARGV, 3 do
  local name, incarnation, counter = ARGV[n], ARGV[n + 1], ARGV[n + 2]
  local found = redis.call('HGET', KEYS[2], name)
  if found and string.sub(found, 1, 16) == incarnation and redis.call('HGET', KEYS[3], name) == counter then
    redis.call('HDEL', KEYS[2], name)
    redis.call('HDEL', KEYS[3], name)
    any = 1
  end
end
if any == 1 then
  redis.call('INCR', KEYS[1])
end
return any
