"""Files and batches: deferrable work, its store and its schedule.

Content rests here: in the state directory, which lies in the gateway's zone and is read by no other
user. Imports config and policy.
"""
