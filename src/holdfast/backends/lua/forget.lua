-- Remove some of the entries that a log forgot, beginning with the oldest: a commit that trims only says up to where.
--
-- KEYS: the log, the list of logs that have some to remove. ARGV: how many at the most, the log's place in that list.
-- Returns 1 if there are more.
local from = redis.call('HGET', KEYS[1], 't')
local trim = tonumber(string.match(redis.call('HGET', KEYS[1], 'm') or '', '^%d+'))
if from and trim then
    local first, last = tonumber(from) + 1, math.min(from + ARGV[1], trim)
    local numbers, owned = {}, {}
    for place = first, last do
        numbers[#numbers + 1] = string.format('%.0f', place)
    end
    if #numbers > 0 then
        for n, record in ipairs(redis.call('HMGET', KEYS[1], unpack(numbers))) do
            local id = record and #record >= 14
                and string.sub(record, 15, 14 + string.byte(record, 13) * 256 + string.byte(record, 14))
            if id and id ~= '' and redis.call('HGET', KEYS[1], 'i' .. id) == numbers[n] then
                owned[#owned + 1] = 'i' .. id
            end
        end
        redis.call('HDEL', KEYS[1], unpack(numbers))
        if #owned > 0 then
            redis.call('HDEL', KEYS[1], unpack(owned))
        end
    end
    if last < trim then
        redis.call('HSET', KEYS[1], 't', string.format('%.0f', last))
        return 1
    end
    redis.call('HDEL', KEYS[1], 't')
end
redis.call('SREM', KEYS[2], ARGV[2])
return 0
