"""Questions: what people may ask of trades, candles and gaps, and the SQL that answers them. Pure: text in, text out.

The HTTP API and the Python client put the same questions, so both give the same answers.
"""
