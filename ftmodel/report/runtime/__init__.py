"""What a script that shows a finding is made of: copied into it as it stands, so it needs the standard library alone.

`cluster.py` starts and ends processes, `clients.py` sends requests, `trial.py` does the steps of a plan, `checks.py` says
what was wrong, `main.py` prints it. How the processes are started is data that the script brings (`Setup`).
"""
