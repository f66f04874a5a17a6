"""A host: sells the work of its engines, keeps every voucher, redeems them, and sits on juries.

Only `main` and `cli` build adapters; everything else is handed its doors.
"""
