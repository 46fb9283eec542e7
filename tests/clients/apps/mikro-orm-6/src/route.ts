import type { RequestHandler } from "express";

type Handler = (...args: Parameters<RequestHandler>) => Promise<void>;

/** Express 4 does not wait for handlers. */
export const route =
  (handle: Handler): RequestHandler =>
  (req, res, next) => {
    handle(req, res, next).catch(next);
  };
