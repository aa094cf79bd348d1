local key = KEYS[1]
local node, request = ARGV[1], ARGV[2]
local limit, held, before = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local least, wish, keep = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
-- Asked again, since the answer was lost: the same answer. One that comes late is answered by nobody.
local last, amount = string.match(redis.call('HGET', key, 'request:' .. node) or '', '^(%d+):(%d+)$')
if last == request then return {tonumber(amount), 0} end
if last and tonumber(last) > tonumber(request) then return {0, 0} end
-- What the node has and the store does not know of was forgotten, and maybe more that others have.
local known = tonumber(redis.call('HGET', key, 'node:' .. node) or '0')
if known < held then
  redis.call('HINCRBY', key, 'lent', string.format('%.0f', held - known))
  redis.call('HSET', key, 'node:' .. node, string.format('%.0f', held), 'closed', 1)
end
-- What was spent before the budget was lent, or before the store forgot, is not lent again.
local all = tonumber(redis.call('HGET', key, 'lent') or '0')
if all < held + before then
  all = held + before
  redis.call('HSET', key, 'lent', string.format('%.0f', all))
end
-- The less there is left, the smaller the shares, so that none of it lies where it is not needed.
local left = limit - all
local lent = math.min(wish, math.max(least, math.floor(left / 16)), left)
if lent < least or redis.call('HEXISTS', key, 'closed') == 1 then lent = 0 end
if lent > 0 then
  redis.call('HINCRBY', key, 'lent', string.format('%.0f', lent))
  redis.call('HINCRBY', key, 'node:' .. node, string.format('%.0f', lent))
end
redis.call('HSET', key, 'request:' .. node, request .. ':' .. string.format('%.0f', lent))
if keep > 0 then redis.call('EXPIRE', key, keep) end
return {lent, math.max(left - lent, 0)}
