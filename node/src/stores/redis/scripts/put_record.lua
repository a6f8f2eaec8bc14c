-- Compare-and-set of one record.
-- KEYS: values, names
-- ARGV: name, expected version (8 bytes) or '' for none, the new value: version and bytes
-- Returns whether it was written, as 1 or 0.
local found = redis.call('HGET', KEYS[1], ARGV[1])
if (found and string.sub(found, 1, 8) or '') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
