-- One commit of one session, or several that were planned one after the other: all of it or nothing.
--
-- KEYS: the head, the log, then the lists of its shard: by time, by id, by tag, by change, the kinds; for a new head
--       also the id of the store that the shard belongs to, for one that forgets entries the logs that do.
-- ARGV: 1 the stamp of the head that was planned on ('' for none), 2 the head to write ('' to look only),
--       3 '1' to begin the log anew, 4 behind which place entries are to be forgotten ('' if none are),
--       5 the member of the list by change, 6 the kind, 7 the channel to tell, 8 the store's id,
--       9 how many ids must not be in the log, 10 fields and values of the log, 11 places to leave, 12 places to take;
--       then these lists, a place being the number of its key and the member.
-- Returns 1 if it is written; else what is there: {head, bounds, hidden, id, its entry, ...}, or, if the shard is not
-- known to be the store's, whose it is, '' for nobody's: all may have been deleted, and another store begun.
local STAMP, MOST = 20, 4000
local ids, fields, leave, take = 13, 0, 0, 0
fields = ids + ARGV[9]
leave = fields + ARGV[10]
take = leave + ARGV[11]

local stamp = redis.call('GETRANGE', KEYS[1], 0, STAMP - 1)
if ARGV[2] ~= '' and stamp == string.sub(ARGV[2], 1, STAMP) then
    -- The answer to this very commit was lost. A write, so that its durability can be waited for.
    redis.call('SETRANGE', KEYS[1], 0, stamp)
    return 1
end

local known, trim = {}, nil
for first = ids, fields - 1, MOST do
    local last = math.min(first + MOST, fields) - 1
    for n, seq in ipairs(redis.call('HMGET', KEYS[2], unpack(ARGV, first, last))) do
        if seq then  -- that of an entry that is forgotten, and will be removed, is free
            trim = trim or tonumber(string.match(redis.call('HGET', KEYS[2], 'm') or '', '^%d+') or 0)
        end
        if seq and tonumber(seq) > trim then
            known[#known + 1] = ARGV[first + n - 1]
            known[#known + 1] = seq
        end
    end
end
if ARGV[2] == '' or stamp ~= ARGV[1] or #known > 0 then
    local log = redis.call('HMGET', KEYS[2], 'm', 'v')
    local there = {redis.call('GET', KEYS[1]), log[1], log[2]}
    for n, value in ipairs(known) do
        there[n + 3] = value
    end
    return there
end

local owner = ARGV[1] == '' and (redis.call('GET', KEYS[8]) or '')
if owner and owner ~= ARGV[8] then
    return owner
end

-- The first write is one that a server without memory refuses, before anything is changed. The number of a change is
-- the time, so that none comes again after a server lost its last moments.
local clock = redis.call('TIME')
local newest = redis.call('ZRANGE', KEYS[6], -1, -1, 'WITHSCORES')
local number = math.max(clock[1] * 1000000 + clock[2], (tonumber(newest[2]) or 0) + 1)
redis.call('ZADD', KEYS[6], string.format('%.0f', number), ARGV[5])
for n = take, #ARGV, 2 do
    redis.call('ZADD', KEYS[tonumber(ARGV[n])], 0, ARGV[n + 1])
end
for n = leave, take - 1, 2 do
    redis.call('ZREM', KEYS[tonumber(ARGV[n])], ARGV[n + 1])
end
if ARGV[1] == '' then
    redis.call('SADD', KEYS[7], ARGV[6])
end

if ARGV[3] == '1' then
    redis.call('UNLINK', KEYS[2])
end
if ARGV[4] ~= '' then
    if not redis.call('HGET', KEYS[2], 't') then
        redis.call('HSET', KEYS[2], 't', ARGV[4])
    end
    redis.call('SADD', KEYS[8], ARGV[5])
end
for first = fields, leave - 1, MOST do
    redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + MOST, leave) - 1))
end
redis.call('SET', KEYS[1], ARGV[2])
redis.pcall('PUBLISH', ARGV[7], ARGV[8])  -- a hint: who may not use channels has committed all the same
return 1
