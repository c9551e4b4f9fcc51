-- The lock of the blobs: a list of holders, by the second at which each is taken for gone.
--
-- KEYS: the list. ARGV: what to do (take, keep, give), who (s… shares, x… is alone), seconds a sign of life lasts.
-- Returns the second at which it is over if it is held, else 0.
-- Whoever waits to be alone stands in the list already, so that nobody new comes in.
local time = tonumber(redis.call('TIME')[1])
if ARGV[1] == 'give' then
    return redis.call('ZREM', KEYS[1], ARGV[2])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time)
if ARGV[1] == 'keep' and not redis.call('ZSCORE', KEYS[1], ARGV[2]) then
    return 0
end
local alone = string.sub(ARGV[2], 1, 1) == 'x'
local sharing = false
if ARGV[1] == 'take' then
    for _, holder in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
        if holder ~= ARGV[2] then
            if string.sub(holder, 1, 1) == 'x' then
                return 0
            end
            sharing = true
        end
    end
end
redis.call('ZADD', KEYS[1], time + tonumber(ARGV[3]), ARGV[2])
return (alone and sharing) and 0 or time + tonumber(ARGV[3])
