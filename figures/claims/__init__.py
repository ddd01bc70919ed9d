"""One file per claim; `figures.claim.CLAIM_NAMES` lists them."""
