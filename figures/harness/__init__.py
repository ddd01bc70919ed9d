"""What a claim is, and how its points are run, stored, judged and selected; no claim, world or picture is known here."""
