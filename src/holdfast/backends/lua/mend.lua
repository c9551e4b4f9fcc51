-- Make the lists say where a head is, if it is still the head that was looked at.
--
-- KEYS: as for commit.lua. ARGV: the stamp of the head, '1' to note that it changed, the member of the list by change,
-- how many places to leave (number of the key, member), then those, then the places to take.
-- Returns how many were wrong or missing.
if redis.call('GETRANGE', KEYS[1], 0, 19) ~= ARGV[1] then
    return 0
end
local fixed, take = 0, 5 + 2 * ARGV[4]
for n = take, #ARGV, 2 do
    fixed = fixed + redis.call('ZADD', KEYS[tonumber(ARGV[n])], 'CH', 0, ARGV[n + 1])
end
for n = 5, take - 1, 2 do
    fixed = fixed + redis.call('ZREM', KEYS[tonumber(ARGV[n])], ARGV[n + 1])
end
if ARGV[2] == '1' then
    local clock = redis.call('TIME')
    local newest = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')
    local number = math.max(clock[1] * 1000000 + clock[2], (tonumber(newest[2]) or 0) + 1)
    fixed = fixed + redis.call('ZADD', KEYS[3], 'NX', string.format('%.0f', number), ARGV[3])
end
return fixed
