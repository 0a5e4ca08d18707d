import { hashName, packHashes } from "../../src/inventory/seen.ts";

/** What a record says where archives of these names were seen. */
export const packNames = (names: Iterable<string>): string => packHashes([...names].map(hashName));
