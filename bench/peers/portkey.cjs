// Portkey listens on all interfaces: here on the loopback alone.
const { Server } = require("node:net");

const listen = Server.prototype.listen;
Server.prototype.listen = function (...all) {
  if (typeof all[0] === "number") return listen.call(this, all[0], "127.0.0.1", ...all.slice(1).filter((it) => typeof it === "function"));
  if (all[0] && typeof all[0] === "object" && "port" in all[0]) all[0] = { ...all[0], host: "127.0.0.1" };
  return listen.apply(this, all);
};
